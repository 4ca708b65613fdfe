"""NegativeModels: outputs of earlier (or random, or pre-trained) states of a network for the same input."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, Union, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from basicsr_plugins.checkpoints import load_state, read_weights
from basicsr_plugins.core import memory_format
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.core.precision import autocast_dtype
from basicsr_plugins.core.unwrap import unwrapped
from basicsr_plugins.negatives.options import MODES, STEPS, THRESHOLD, check_negatives, paths

__all__ = ["NegativeModels", "fresh_copy", "mix_start", "output_spread"]


class NegativeModels(nn.Module):
    """The negative models of SPN ("Learning from History", Wu et al., AAAI 2024, equation 1).

    Every ``s`` iterations a negative's weights become ``decay * negative + (1 - decay) * network``. Copies are made by
    mmengine's averaged model; they stay in eval mode, need no gradient and are the same on every rank. Call ``update``
    once for each step of the optimizer: after it, in mode ``adaptive`` before it.

    Args:
        model: The network, wrapped for data parallelism or not.
        steps: One negative per number of iterations. Default: the paper's 100, 500, 1000, 2000.
        decay: w, one for all or one each. Default 0.1 (Table 9); 0.001 in mode ``adaptive`` (released code).
        start: Weight of a freshly initialised network in a negative's first weights. Default 0, plain copies (ours);
            released FFA-Net configuration: 0.1.
        mode: ``history``; ``random``: fresh networks that never change (Table 6); ``pretrained``: fixed networks from
            files (Table 6); ``adaptive``: one negative in turn is replaced whenever the output's error spreads more
            than ``threshold`` (undocumented variant in the released code, which takes the weights before the step).
        count: Number of negatives in modes ``random`` and ``adaptive``; default 1 and 4.
        pretrained: Path or paths of the fixed networks, BasicSR's files.
        threshold: For mode ``adaptive``. Default 0.022 (released code), for images in [0, 1].
        negatives_per_step: How many of the negatives each call uses; None: all. The mean over a run is the same.
        selection: ``cycle``, one after the other, or ``random``; both are the same on every rank and after a resume.
        precision: ``fp32``, ``bf16`` or ``fp16`` for the negatives' forward pass; None: whatever the network runs in.
        channels_last: Keep the negatives in channels-last memory order, often faster for convolutional networks.
        factory: Builds a freshly initialised network; without it a copy is made and each module's
            ``reset_parameters`` is called.
        seed: Of fresh networks and of ``selection: random``.

    Raises:
        OptionError: No negative, a step below 1, a decay outside [0, 1], or options that do not go together.
        DependencyError: mmengine is not installed.

    Example:
        >>> net = nn.Conv2d(3, 3, 3, padding=1)
        >>> negatives = NegativeModels(net, steps=[1, 2])
        >>> for _ in range(2):  # in a training loop, after each optimizer.step()
        ...     negatives.update(net)
        [0]
        [0, 1]
        >>> negatives.ready, tuple(negatives(torch.rand(1, 3, 8, 8)).shape)
        (True, (2, 1, 3, 8, 8))
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Sequence[int] = STEPS,
        decay: Union[float, Sequence[float], None] = None,
        start: float = 0.0,
        mode: str = "history",
        count: Optional[int] = None,
        pretrained: Union[str, Sequence[str], None] = None,
        threshold: float = THRESHOLD,
        negatives_per_step: Optional[int] = None,
        selection: str = "cycle",
        precision: Optional[str] = None,
        channels_last: bool = False,
        factory: Optional[Callable[[], nn.Module]] = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.steps, decays = check_negatives(
            steps=steps,
            decay=decay,
            start=start,
            mode=mode,
            count=count,
            pretrained=pretrained,
            threshold=threshold,
            negatives_per_step=negatives_per_step,
            selection=selection,
            precision=precision,
        )
        files = paths(pretrained)
        self.threshold = threshold
        self.per_step = negatives_per_step or len(self.steps)
        self.selection = selection
        self.precision = precision
        self.seed = seed
        self.iteration = 0
        self.refreshed = 0

        bare = unwrapped(model)
        history_model = _history_model()
        self.models = nn.ModuleList()
        for index, (interval, weight) in enumerate(zip(self.steps, decays)):
            negative = history_model(bare, interval, weight)
            if mode == "random" or start:
                mix_start(negative.module, fresh_copy(bare, factory, seed + index), 1.0 if mode == "random" else start)
            self.models.append(memory_format.channels_last(negative) if channels_last else negative)
        for negative, path in zip(self.models, files):
            _load(cast(Any, negative).module, path)
        self._same_on_ranks()
        self.eval()

    def train(self, mode: bool = True) -> NegativeModels:
        """Stay in eval mode, as the network is at test time."""
        return super().train(False)

    def __len__(self) -> int:
        return len(self.models)

    @property
    def ready(self) -> bool:
        """Whether the largest step has passed; before that some negatives are the starting weights."""
        return self.mode in ("random", "pretrained") or self.iteration >= max(self.steps)

    @property
    def before_step(self) -> bool:
        """Whether ``update`` belongs before the optimizer's step.

        The adaptive variant takes the weights that made the output; those after the step are the network of the next
        iteration, whose output such a negative would repeat.
        """
        return self.mode == "adaptive"

    @property
    def chosen(self) -> list[int]:
        """The negatives that the next call uses."""
        if self.per_step == len(self.models):
            return list(range(len(self.models)))
        if self.selection == "cycle":
            first = self.iteration * self.per_step
            return [(first + offset) % len(self.models) for offset in range(self.per_step)]
        # from seed and iteration alone: the same on every rank, and nothing to save. Torch's generator reads 32 bits of
        # a seed; the odd factor keeps the sequences of two seeds far apart
        generator = torch.Generator().manual_seed((self.seed * 2654435761 + self.iteration) % (1 << 32))
        return torch.randperm(len(self.models), generator=generator)[: self.per_step].tolist()

    @torch.no_grad()
    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return the chosen negatives' outputs, without a graph.

        Args:
            inputs: What the network takes, usually ``lq`` ``(n, 3, h, w)``.
            named: Its keyword arguments.

        Returns:
            ``(k, n, 3, h, w)`` in the type of the first input.
        """
        image = next(value for value in (*inputs, *named.values()) if isinstance(value, Tensor))
        context: Any = contextlib.nullcontext()
        if self.precision is not None:
            kind = autocast_dtype(self.precision, "precision")
            context = torch.autocast(image.device.type, dtype=kind, enabled=kind is not None)
        with torch.inference_mode(), context:
            outputs = [self.models[index](*inputs, **named) for index in self.chosen]
        if not isinstance(outputs[0], Tensor):
            raise OptionError(
                f"NegativeModels needs a network that returns one tensor, {type(self.models[0].module).__name__} "
                f"returns a {type(outputs[0]).__name__}. Wrap it in a module that returns its image."
            )
        return torch.stack(outputs).to(image.dtype)  # outside, so that the result is an ordinary tensor

    @torch.no_grad()
    def update(self, model: nn.Module, output: Optional[Tensor] = None, target: Optional[Tensor] = None) -> list[int]:
        """Count one iteration and refresh the negatives whose turn it is; see ``before_step`` for the moment.

        Args:
            model: The network.
            output: Its last output ``(n, 3, h, w)``; for mode ``adaptive``.
            target: The clean images, of that shape; for mode ``adaptive``.

        Returns:
            The indices of the refreshed negatives.

        Raises:
            OptionError: Mode ``adaptive`` without ``output`` and ``target``.
        """
        self.iteration += 1
        if self.mode == "history":
            due = [index for index, interval in enumerate(self.steps) if self.iteration % interval == 0]
        elif self.mode == "adaptive":
            if output is None or target is None:
                raise OptionError("mode 'adaptive' needs the output and the target: update(model, output, target).")
            due = [self.refreshed % len(self.models)] if output_spread(output, target) > self.threshold else []
        else:
            due = []
        for index in due:
            cast(Any, self.models[index]).refresh(unwrapped(model))
            self.refreshed += 1
        return due

    def get_extra_state(self) -> Tensor:
        """Return the counters, the mode and the steps: a tensor, as most code expects of a state dict's values."""
        return torch.tensor([self.iteration, self.refreshed, MODES.index(self.mode), *self.steps])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the counters.

        Raises:
            CheckpointError: The state is of another mode or other steps.
        """
        iteration, refreshed, mode, *steps = state.tolist()
        if (MODES[mode], steps) != (self.mode, self.steps):
            raise CheckpointError(
                f"negatives: the checkpoint has mode {MODES[mode]!r} with steps {steps}, the options say mode "
                f"{self.mode!r} with steps {self.steps}. Resume with the options it was started with."
            )
        self.iteration, self.refreshed = iteration, refreshed

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights and counters.

        Raises:
            CheckpointError: The state is of other negatives.
        """
        if "_extra_state" in state_dict:
            self.set_extra_state(state_dict["_extra_state"])  # its message comes before a list of missing keys
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _same_on_ranks(self) -> None:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            # the copies alone: mmengine's counter is equal everywhere, and on the CPU, which NCCL does not serve
            for negative in self.models:
                copied = cast(nn.Module, negative.module)
                for tensor in (*copied.parameters(), *copied.buffers()):
                    dist.broadcast(tensor.data, src=0)


def output_spread(output: Tensor, target: Tensor) -> float:
    """Return the batch mean of the standard deviation of ``2 * (output - target)``, the same on every rank.

    Args:
        output: ``(n, c, h, w)``.
        target: Of that shape.
    """
    spread = (2 * (output - target)).float().flatten(1).std(dim=1).mean()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(spread)
        spread = spread / dist.get_world_size()
    return float(spread)


def fresh_copy(model: nn.Module, factory: Optional[Callable[[], nn.Module]] = None, seed: int = 0) -> nn.Module:
    """Return a freshly initialised network like ``model``, drawn from ``seed`` without touching torch's generator.

    Args:
        model: The network.
        factory: Builds one; without it each module's ``reset_parameters`` is called on a copy, and parameters that
            belong to no such module keep the model's values.
        seed: The draw.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        if factory is not None:
            return factory()
        fresh = copy.deepcopy(model).cpu()
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        return fresh


@torch.no_grad()
def mix_start(negative: nn.Module, fresh: nn.Module, start: float) -> None:
    """Set ``negative`` to ``start * fresh + (1 - start) * negative``, parameters only.

    Raises:
        OptionError: ``fresh`` is not the same network.
    """
    others = dict(fresh.named_parameters())
    for name, own in negative.named_parameters():
        other = others.get(name)
        if other is None or other.shape != own.shape:
            raise OptionError(f"factory: it must build the same network, but its parameter {name!r} differs.")
        own.mul_(1 - start).add_(other.to(own), alpha=start)


def _load(network: nn.Module, path: str) -> None:
    load_state(network, read_weights(path, "params_ema"), path)


def _history_model() -> type:
    try:
        from basicsr_plugins.negatives.history import HistoryModel
    except ImportError as problem:
        raise DependencyError(
            f"NegativeModels needs mmengine ({problem}). Install it: pip install mmengine-lite, or mmengine."
        ) from problem
    return HistoryModel
