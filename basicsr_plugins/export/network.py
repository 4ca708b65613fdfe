"""The plain network that a model stands for, and what surrounds it in an exported file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor, nn

from basicsr_plugins import checkpoints
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple
from basicsr_plugins.restore.find_model import Model, find_model
from basicsr_plugins.restore.restorer import ImageRestorer
from basicsr_plugins.training.inference import own_multiple

__all__ = ["AnySize", "Plain", "plain_network"]

#: Sides of which none is a multiple of anything; and the multiples that networks are known to ask for.
ODD = (45, 70)
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


class AnySize(nn.Module):
    """A network behind padding and in front of cropping, in a precision of its own.

    Args:
        network: Maps (n, c, h, w) to (n, c, h * scale, w * scale).
        multiple: Sides are padded to multiples of this by reflection on the right and at the bottom.
        scale: Side of the output over side of the input.
        dtype: What the network computes in; images are float32 on both sides.
    """

    def __init__(
        self, network: nn.Module, multiple: int = 1, scale: int = 1, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.network, self.multiple, self.scale, self.dtype = network, multiple, scale, dtype

    def forward(self, lq: Tensor) -> Tensor:
        """Restore ``lq`` of (n, c, h, w) in [0, 1]; not clamped."""
        if self.multiple == 1:
            restored: Tensor = self.network(lq.to(self.dtype))
            return restored.float()
        h, w = lq.shape[-2:]
        restored = self.network(pad_to_multiple(lq, self.multiple).to(self.dtype)).float()
        return crop_to(restored, h * self.scale, w * self.scale)


@dataclass(frozen=True)
class Plain:
    """A network that needs nothing but images.

    Args:
        network: In eval mode, float32, on the CPU.
        network_opt: The ``network_g`` that builds it.
        label: What to call it in messages.
        channels: Of its images.
        scale: Side of the output over side of the input.
        multiple: What its sides have to be multiples of; 1 where it pads by itself.
    """

    network: nn.Module
    network_opt: Mapping[str, Any]
    label: str
    channels: int
    scale: int
    multiple: int

    def any_size(self) -> AnySize:
        """Return the network with the padding that it needs; what an exported file has to agree with."""
        return AnySize(self.network, self.multiple, self.scale)


def plain_network(
    model: Union[str, Path, None],
    weights: Union[str, Mapping[str, float], None] = None,
    base: Union[str, Path, None] = None,
) -> Plain:
    """Return the network of a model; adapters are folded into it.

    Args:
        model: What ``restore --model`` takes.
        weights: Of several adapters: ``{"rain": 0.7, "haze": 0.3}``, or one adapter's name.
        base: The base network of adapters, where it is not at its recorded place.

    Raises:
        OptionError: There is no such model, or it is no single network.
        CheckpointError: It cannot be used, or restores no pictures.
    """
    found = find_model(model, base)
    names = found.adapters
    if names and weights is None:
        raise OptionError(
            f"{found.label}: adapters that are blended anew for each image are no plain network, which alone can be "
            f"exported. Name what to merge: --only {names[0]}, or --weights {names[0]}=0.7,{names[1]}=0.3."
        )
    engine = ImageRestorer(found, torch.device("cpu"), weights=weights).engine
    network = engine.network.requires_grad_(False)
    multiple = _multiple(network, engine.channels, engine.scale)
    return Plain(network, _network_opt(network, found), found.label, engine.channels, engine.scale, multiple)


def _network_opt(network: nn.Module, found: Model) -> dict[str, Any]:
    if isinstance(network, HubNetwork):
        return network.network_opt()
    if found.file is None:
        raise CheckpointError(f"{found.label}: it does not say which file its network comes from.")
    return checkpoints.network_of(found.file)


@torch.inference_mode()
def _multiple(network: nn.Module, channels: int, scale: int) -> int:
    """Return the smallest multiple with which the network takes an image of odd sides."""
    image, problem = torch.full((1, channels, *ODD), 0.5), ""
    for multiple in sorted({math.lcm(own_multiple(network), each) for each in MULTIPLES}):
        padded = pad_to_multiple(image, multiple)
        try:
            shape = tuple(network(padded).shape[-2:])
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            problem = f" ({(str(error).strip() or type(error).__name__).splitlines()[0]})"
            continue
        if shape == (padded.shape[-2] * scale, padded.shape[-1] * scale):
            return multiple
    raise CheckpointError(
        f"{type(network).__name__} takes images of some sizes only, even of sides that are multiples of 64{problem}."
    )
