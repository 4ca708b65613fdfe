"""Read inner features of any network by module name, without editing the network (for DCPT, probes, other losses)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError, one_of
from basicsr_plugins.core.unwrap import unwrapped

__all__ = ["FeatureTap"]


class _Stop(Exception):
    """Leaves the forward pass after the last tapped module."""


class FeatureTap:
    """Runs a network and returns what the named modules put out, as maps ``(n, c, h, w)``.

    Hooks sit on module objects, so the names are the same with and without a parallel wrapper, and they are there only
    while the tap runs: the network is unchanged, and other forward passes collect nothing. Gradients flow into the
    network. Token features ``(n, h * w, c)`` are brought to maps with the size that the module was called with (stock
    SwinIR's groups get it as an argument) or the one that follows from the image; it is never guessed as a square.

    Args:
        network: Any network, wrapped for parallel training, compiled, or not.
        layers: Exact names from ``network.named_modules()``, in the order in which the features are wanted.
        stop_early: End the forward pass after the last tapped module: what lies behind it costs nothing.
        where: The option's YAML path for messages.

    Raises:
        OptionError: A name that the network does not have (with the near ones), a name twice, no name at all.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
        >>> [feature] = FeatureTap(net, ["1"])(torch.rand(1, 3, 16, 20))
        >>> tuple(feature.shape)
        (1, 8, 16, 20)
    """

    def __init__(
        self, network: nn.Module, layers: Sequence[str], stop_early: bool = True, where: str = "feature_layers"
    ) -> None:
        network = unwrapped(network)
        modules = dict(network.named_modules())
        if not layers:
            raise OptionError(f"{where}: name at least one module of {type(network).__name__}.")
        for name in layers:
            if name not in modules or not name:
                close = [n for n in modules if n and n.count(".") <= 2]
                raise OptionError(f"{where}: {type(network).__name__} has {one_of(name, close, 'module')}")
        if len(set(layers)) != len(layers):
            raise OptionError(f"{where}: a module is named twice in {list(layers)}.")
        self.network = network
        self.layers = tuple(layers)
        self.stop_early = stop_early
        self._modules = {name: modules[name] for name in layers}
        self._hooks = {name: self._hook(name) for name in layers}
        self._found: dict[str, Tensor] = {}
        self._size: tuple[int, ...] = (0, 0)
        self._stops = False
        self._compiled: Any = None

    def compile(self, **arguments: Any) -> None:
        """Let ``torch.compile`` compile the pass with its taps; ``arguments`` are its own.

        What lies behind the last tapped module is then cut out of the graph instead of being stopped at.
        """
        self._compiled = torch.compile(self._features, **arguments)

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Return the features of ``image`` (n, c, h, w) in the order of ``layers``.

        Raises:
            OptionError: A tapped module was not reached, ran more than once, or puts out something else than a map or
                tokens.
        """
        return self._run(image, self.stop_early)[1]

    def with_output(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the network's output and the features, from one forward pass."""
        return self._run(image, stop_early=False)

    def _run(self, image: Tensor, stop_early: bool) -> tuple[Any, list[Tensor]]:
        self._stops = stop_early and self._compiled is None
        handles = [module.register_forward_hook(self._hooks[name]) for name, module in self._modules.items()]
        try:
            return (self._compiled or self._features)(image, not stop_early)
        finally:
            for handle in handles:
                handle.remove()

    def _features(self, image: Tensor, whole: bool) -> tuple[Any, list[Tensor]]:
        self._found, self._size = {}, tuple(image.shape[-2:])
        # forward, not __call__: a network that was compiled without hooks does not see them
        output = (self._until_stopped if self._stops else self.network.forward)(image)
        missing = [name for name in self.layers if name not in self._found]
        if missing:
            raise OptionError(f"feature_layers: {missing[0]!r} did not run in the forward pass; tap another module.")
        return output if whole else None, [self._found[name] for name in self.layers]

    def _until_stopped(self, image: Tensor) -> None:
        with contextlib.suppress(_Stop):
            self.network.forward(image)

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if name in self._found:
                raise OptionError(f"feature_layers: {name!r} runs more than once in a forward pass; tap another")
            self._found[name] = _as_map(name, output, inputs, self._size)
            if self._stops and len(self._found) == len(self.layers):
                raise _Stop

        return hook

    def shapes(self, channels: int = 3, size: int = 64) -> list[tuple[int, int, int]]:
        """Return ``(c, h, w)`` of every feature for an image of ``size`` x ``size``, from a dry run."""
        parameter = next(self.network.parameters(), None)
        image = torch.zeros(1, channels, size, size)
        if parameter is not None:
            image = image.to(parameter.device, parameter.dtype)
        training = {module: module.training for module in self.network.modules()}
        self.network.eval()  # BatchNorm statistics and dropout shall not see the dry run
        try:
            with torch.no_grad():
                return [tuple(feature.shape[1:]) for feature in self(image)]  # type: ignore[misc]
        finally:
            for module, mode in training.items():
                module.training = mode


def _as_map(name: str, output: Any, inputs: tuple[Any, ...], image: tuple[int, ...]) -> Tensor:
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        output = output[0]
    if isinstance(output, Tensor) and output.dim() == 4:
        return output
    if isinstance(output, Tensor) and output.dim() == 3:
        size = _token_grid(output.shape[1], inputs, image)
        if size is not None:
            return output.transpose(1, 2).unflatten(2, size)
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise OptionError(
        f"feature_layers: {name!r} puts out {shape}, which is neither a map (n, c, h, w) nor tokens (n, h * w, c) of a "
        f"{image} image; tap another module."
    )


def _token_grid(tokens: int, inputs: tuple[Any, ...], image: tuple[int, ...]) -> Optional[tuple[int, int]]:
    for value in inputs:  # transformer blocks are told their grid
        is_size = isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(side, int) for side in value)
        if is_size and value[0] * value[1] == tokens:
            return value[0], value[1]
    height, width = image
    for factor in (1, 2, 4, 8, 16, 32):
        if height % factor == 0 and width % factor == 0 and (height // factor) * (width // factor) == tokens:
            return height // factor, width // factor
    return None
