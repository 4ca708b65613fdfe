"""Any optimizer and scheduler of torch by name, stock's own schedulers, and a warm-up whose whole curve is right."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Callable

import torch
from torch import nn

from basicsr_plugins.errors import OptionError, one_of
from basicsr_plugins.options import check_call

__all__ = ["WarmUp", "build_optimizer", "build_scheduler", "check_optimizer", "check_scheduler", "clip_gradients"]

_NEEDS_A_METRIC = "ReduceLROnPlateau"


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
    known.pop(_NEEDS_A_METRIC, None)
    from basicsr.models import lr_scheduler as stock

    known.update(_classes(stock, torch.optim.lr_scheduler.LRScheduler))
    known["MultiStepLR"] = stock.MultiStepRestartLR  # stock runs its own class under torch's name
    return _pick(given, known, where, "scheduler")


def _pick(given: Mapping[str, Any], known: Mapping[str, type], where: str, what: str) -> type:
    if "type" not in given:
        raise OptionError(f"{where}.type: this option is required. Allowed: {', '.join(sorted(known))}.")
    if given["type"] not in known:
        raise OptionError(f"{where}.type: {one_of(given['type'], sorted(known), what)}")
    return known[given["type"]]


def check_optimizer(given: Mapping[str, Any], where: str) -> None:
    """Check the ``type`` and the argument names of an optimizer.

    Raises:
        OptionError: An unknown optimizer or argument.
    """
    arguments = {key: value for key, value in given.items() if key != "type"}
    check_call(_optimizer_class(given, where), {"params": [], **arguments}, where)


def check_scheduler(given: Mapping[str, Any], where: str) -> None:
    """Check the ``type`` and the argument names of a scheduler.

    Raises:
        OptionError: An unknown scheduler or argument.
    """
    arguments = {key: value for key, value in given.items() if key != "type"}
    check_call(_scheduler_class(given, where), {"optimizer": None, **arguments}, where)


def build_optimizer(given: Mapping[str, Any], parameters: Iterable[nn.Parameter], where: str) -> torch.optim.Optimizer:
    """Return the optimizer that ``given`` describes, without changing ``given``.

    Args:
        given: ``type`` (any class of ``torch.optim``) and its arguments, ``fused`` included.
        parameters: What it optimises.
        where: The YAML path for messages.
    """
    check_optimizer(given, where)
    arguments = {key: value for key, value in given.items() if key != "type"}
    return _optimizer_class(given, where)(list(parameters), **arguments)


def build_scheduler(given: Mapping[str, Any] | None, optimizer: torch.optim.Optimizer, where: str) -> Any:
    """Return the scheduler that ``given`` describes; None keeps the rate constant."""
    if given is None:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, _constant)
    check_scheduler(given, where)
    arguments = {key: value for key, value in given.items() if key != "type"}
    return _scheduler_class(given, where)(optimizer, **arguments)


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
            for scheduler in self.schedulers:
                scheduler.step()
        self.scheduled = self._rates()
        if 0 < current_iter < warmup_iter:
            self._write(lambda rate: rate * current_iter / warmup_iter)

    def _write(self, change: Callable[[float], float]) -> None:
        for optimizer, rates in zip(self.optimizers, self.scheduled):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = change(rate)


def clip_gradients(parameters: list[nn.Parameter], limit: float | Mapping[str, float] | None) -> torch.Tensor | None:
    """Clip gradients in place and return their norm before clipping (None without a limit).

    Args:
        parameters: The parameters whose gradients are clipped together.
        limit: The largest norm, ``{"norm": x}`` or ``{"value": x}`` (each element to [-x, x]).
    """
    if limit is None:
        return None
    limits = dict(limit) if isinstance(limit, Mapping) else {"norm": float(limit)}
    if "value" in limits:
        norm = nn.utils.clip_grad_norm_(parameters, float("inf"))
        nn.utils.clip_grad_value_(parameters, limits["value"])
        return norm
    return nn.utils.clip_grad_norm_(parameters, limits["norm"])
