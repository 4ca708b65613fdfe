"""Any optimizer and scheduler of torch by name, stock's own schedulers, and a warm-up on top of the schedule."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Callable

import torch
from torch import nn

from basicsr_plugins.core.errors import OptionError, one_of
from basicsr_plugins.core.options import check_call, check_value

__all__ = [
    "WarmUp",
    "build_optimizer",
    "build_scheduler",
    "check_optimizer",
    "check_scheduler",
    "clip_gradients",
    "gradient_norm",
]

#: What an option file cannot describe or the training loop cannot feed, and why.
_REFUSED = {
    "LBFGS": "it evaluates the loss several times in a step",
    "SparseAdam": "it takes sparse gradients only",
    "ReduceLROnPlateau": "it follows a metric, and rates are set in every iteration",
    "LambdaLR": "it takes python functions",
    "MultiplicativeLR": "it takes python functions",
}
#: Schedulers that take other schedulers: written as a list of mappings.
_NESTED = ("SequentialLR", "ChainedScheduler")


def _classes(module: Any, base: type) -> dict[str, type]:
    return {
        name: thing
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and issubclass(thing, base) and thing is not base and not name.startswith("_")
    }


def _optimizer_class(given: Mapping[str, Any], where: str) -> type:
    known = _classes(torch.optim, torch.optim.Optimizer)
    return _pick(given, known, where, "optimizer")


def _scheduler_class(given: Mapping[str, Any], where: str) -> type:
    known = _classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler)
    from basicsr.models import lr_scheduler as stock

    known.update(_classes(stock, torch.optim.lr_scheduler.LRScheduler))
    known["MultiStepLR"] = stock.MultiStepRestartLR  # stock runs its own class under torch's name
    return _pick(given, known, where, "scheduler")


def _pick(given: Mapping[str, Any], known: Mapping[str, type], where: str, what: str) -> type:
    if "type" not in given:
        raise OptionError(f"{where}.type: this option is required. Allowed: {', '.join(sorted(known))}.")
    if not isinstance(given["type"], str):
        raise OptionError(f"{where}.type: expected the name of a {what}, got {given['type']!r}.")
    if given["type"] in _REFUSED:
        raise OptionError(f"{where}.type: {given['type']} cannot be used here: {_REFUSED[given['type']]}.")
    if given["type"] not in known:
        raise OptionError(f"{where}.type: {one_of(given['type'], sorted(set(known) - set(_REFUSED)), what)}")
    return known[given["type"]]


def _call(function: Callable[..., Any], where: str, *positional: Any, **arguments: Any) -> Any:
    """Call, and turn torch's own complaint about a value into one about the option."""
    try:
        return function(*positional, **arguments)
    except OptionError:
        raise
    except Exception as error:  # torch raises ValueError, TypeError, AssertionError, RuntimeError ...
        raise OptionError(f"{where}: {error}") from error


def check_optimizer(given: Mapping[str, Any], where: str) -> None:
    """Check an optimizer's ``type``, the names of its arguments, and their values on a parameter made for that.

    Raises:
        OptionError: An unknown optimizer or argument, or a value that torch refuses.
    """
    build_optimizer({**given, "fused": False} if given.get("fused") else given, [_example()], where)


def _example() -> nn.Parameter:
    return nn.Parameter(torch.zeros(2, 2))


def check_scheduler(given: Mapping[str, Any], where: str) -> None:
    """Check a scheduler's ``type``, the names of its arguments, and their values on an optimizer made for that.

    Raises:
        OptionError: An unknown scheduler or argument, or a value that torch refuses.
    """
    build_scheduler(given, torch.optim.SGD([_example()], lr=0.1, momentum=0.9), where)


def build_optimizer(given: Mapping[str, Any], parameters: Iterable[nn.Parameter], where: str) -> torch.optim.Optimizer:
    """Return the optimizer that ``given`` describes, without changing ``given``.

    Args:
        given: ``type`` (any class of ``torch.optim``) and its arguments, ``fused`` included.
        parameters: What it optimises.
        where: The YAML path for messages.

    Raises:
        OptionError: An unknown optimizer or argument, or a value that torch refuses.
    """
    optimizer_class = _optimizer_class(given, where)
    arguments = {key: value for key, value in given.items() if key != "type"}
    check_call(optimizer_class, {"params": [], **arguments}, where)
    _check_numbers(optimizer_class, arguments, where)
    return _call(optimizer_class, where, list(parameters), **arguments)


def build_scheduler(given: Mapping[str, Any] | None, optimizer: torch.optim.Optimizer, where: str) -> Any:
    """Return the scheduler that ``given`` describes; None keeps the rate constant.

    .. code-block:: yaml

        scheduler:
          type: SequentialLR
          schedulers: [{type: ConstantLR, factor: 1}, {type: CosineAnnealingLR, T_max: 208000, eta_min: !!float 1e-6}]
          milestones: [92000]

    Raises:
        OptionError: An unknown scheduler or argument, or a value that torch refuses.
    """
    if given is None:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, _constant)
    scheduler_class = _scheduler_class(given, where)
    arguments = {key: value for key, value in given.items() if key != "type"}
    if given["type"] in _NESTED:
        parts = arguments.get("schedulers")
        if not isinstance(parts, (list, tuple)) or not all(isinstance(part, Mapping) for part in parts):
            raise OptionError(f"{where}.schedulers: expected a list of schedulers, each a mapping with a `type`.")
        arguments["schedulers"] = [
            build_scheduler(part, optimizer, f"{where}.schedulers.{number}") for number, part in enumerate(parts)
        ]
    if "optimizer" in inspect.signature(scheduler_class).parameters:  # torch 2.0's ChainedScheduler reads its parts'
        arguments["optimizer"] = optimizer
    check_call(scheduler_class, arguments, where)
    _check_numbers(scheduler_class, arguments, where)
    return _call(scheduler_class, where, **arguments)


def _check_numbers(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    """Refuse text where the default is a number: the optimizers of torch 2.0 have no annotations."""
    for key, parameter in inspect.signature(function).parameters.items():
        if type(parameter.default) in (int, float) and isinstance(given.get(key), str):
            check_value(given[key], float, f"{where}.{key}")


def _constant(_: int) -> float:
    return 1.0


class WarmUp:
    """A linear rise of the learning rate that never leaks into the schedule behind it.

    Stock writes the warm-up rate into the optimizer, where chainable schedulers (MultiStepRestartLR) read it back: the
    rate ends at 0.9 of its value for the rest of the training. Here the schedule always sees its own rates; the factor
    ``min(1, iteration / warmup_iter)`` is applied on top.

    Args:
        optimizers: The optimizers, each with its scheduler at the same place in ``schedulers``.
        schedulers: Stepped once an iteration from the second one on, as in stock.
    """

    def __init__(self, optimizers: list[torch.optim.Optimizer], schedulers: list[Any]) -> None:
        self.optimizers = optimizers
        self.schedulers = schedulers
        self.scheduled = self._rates()

    def _rates(self) -> list[list[float]]:
        return [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def step(self, current_iter: int, warmup_iter: int) -> None:
        """Set the rates of iteration ``current_iter`` (counted from 1)."""
        self._write(lambda rate: rate)
        if current_iter > 1:
            with warnings.catch_warnings():
                # an iteration of an accumulation window, or one that was skipped, has no optimizer step before it
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                for scheduler in self.schedulers:
                    scheduler.step()
        self.scheduled = self._rates()
        if 0 < current_iter < warmup_iter:
            self._write(lambda rate: rate * current_iter / warmup_iter)

    def _write(self, change: Callable[[float], float]) -> None:
        for optimizer, rates in zip(self.optimizers, self.scheduled):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = change(rate)


@torch.no_grad()
def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Return the 2-norm of all gradients together; 0 where there are none."""
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device if parameters else None)
    return torch.linalg.vector_norm(torch.stack([norm.float() for norm in torch._foreach_norm(gradients)]))


@torch.no_grad()
def clip_gradients(
    parameters: list[nn.Parameter], limit: float | Mapping[str, float] | None, norm: torch.Tensor | None = None
) -> torch.Tensor:
    """Clip gradients in place and return their norm before clipping.

    Args:
        parameters: The parameters whose gradients are clipped together.
        limit: The largest norm, ``{"norm": x}`` or ``{"value": x}`` (each element to [-x, x]), or both; None clips
            nothing.
        norm: Their norm, where it is known already.
    """
    norm = gradient_norm(parameters) if norm is None else norm
    if limit is None:
        return norm
    limits = dict(limit) if isinstance(limit, Mapping) else {"norm": float(limit)}
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if "norm" in limits and gradients:
        torch._foreach_mul_(gradients, (limits["norm"] / (norm + 1e-6)).clamp(max=1.0).to(gradients[0].device))
    if "value" in limits:
        nn.utils.clip_grad_value_(parameters, limits["value"])
    return norm
