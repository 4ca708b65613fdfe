"""FFA-Net: feature fusion attention for dehazing (arXiv 1911.07559, AAAI 2020)."""

from __future__ import annotations

import torch
from torch import nn

from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.layers import Stage
from basicsr_plugins.archs.presets import with_presets
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides

__all__ = ["FFANet"]

PRESETS = {
    "its": {"blocks": 19},  # the two published checkpoints, indoor and outdoor, have one architecture
    "ots": {"blocks": 19},
    "small": {"blocks": 6},  # ours, for small GPUs, and for CPUs and tests
    "tiny": {"blocks": 1},
}
WIDTH = 64  # fixed in the published network
MEAN = (0.64, 0.60, 0.58)
STD = (0.14, 0.15, 0.152)


class ChannelAttention(nn.Module):
    """A gate per channel from the global mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ca = nn.Sequential(
            nn.Conv2d(channels, channels // 8, 1), nn.ReLU(), nn.Conv2d(channels // 8, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Weigh the channels of ``x`` of ``(n, c, h, w)``."""
        return x * self.ca(x.mean(dim=(-2, -1), keepdim=True))


class PixelAttention(nn.Module):
    """A gate per pixel, shared by all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pa = nn.Sequential(
            nn.Conv2d(channels, channels // 8, 1), nn.ReLU(), nn.Conv2d(channels // 8, 1, 1), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Weigh the pixels of ``x`` of ``(n, c, h, w)``."""
        return x * self.pa(x)


class Block(nn.Module):
    """Two convolutions, channel attention, pixel attention, and two residuals."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.calayer = ChannelAttention(channels)
        self.palayer = PixelAttention(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        return self.palayer(self.calayer(self.conv2(self.conv1(x).relu() + x))) + x


class Group(nn.Module):
    """Blocks, a convolution and a residual."""

    def __init__(self, channels: int, blocks: int, use_checkpoint: bool) -> None:
        super().__init__()
        self.gp = Stage(
            *(Block(channels) for _ in range(blocks)),
            nn.Conv2d(channels, channels, 3, padding=1),
            use_checkpoint=use_checkpoint,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        return self.gp(x) + x


@provides("arch")
@with_presets(PRESETS)
class FFANet(HubNetwork):
    """FFA-Net (arXiv 1911.07559), keys, shapes and results as published, any input size.

    The published network takes images normalised by its own mean and deviation, and returns plain RGB in [0, 1]: a
    normalisation by BasicSR's data sets would also change the target. ``unit_range: true`` normalises inside instead.

    Args:
        gps: Number of groups; only 3.
        blocks: Blocks per group; 19 in the published checkpoints.
        unit_range: Take RGB in [0, 1] and normalise it here. False as published.
        use_checkpoint: Recompute blocks in the backward pass to save memory.
        preset: A variant by name, see ``FFANet.presets``.

    Shapes: ``(n, 3, h, w)`` to ``(n, 3, h, w)`` RGB in [0, 1], not clamped.

    Raises:
        OptionError: ``gps`` is not 3, or there are no blocks.

    Example:
        network_g: {type: FFANet, preset: its, unit_range: true}
    """

    #: The later half of the groups, finest (all have the image's size) and last first. Ours: no paper taps FFA-Net.
    feature_layers: tuple[str, ...] = ("g3", "g2")
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, gps: int = 3, blocks: int = 19, unit_range: bool = False, use_checkpoint: bool = False
    ) -> None:  # fmt: skip
        super().__init__()
        if gps != 3:
            raise OptionError(f"gps: the network is defined for 3 groups, got {gps}.")
        if blocks < 0:
            raise OptionError(f"blocks: 0 or more, got {blocks}.")
        self.unit_range = unit_range
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.g1, self.g2, self.g3 = (Group(WIDTH, blocks, use_checkpoint) for _ in range(3))
        self.ca = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(WIDTH * 3, WIDTH // 16, 1), nn.ReLU(),
            nn.Conv2d(WIDTH // 16, WIDTH * 3, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.palayer = PixelAttention(WIDTH)
        self.pre = nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1))
        self.post = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 3, 3, padding=1))

    def forward(self, x1: torch.Tensor) -> torch.Tensor:
        """Dehaze ``x1`` of ``(n, 3, h, w)``."""
        if self.unit_range:
            x1 = (x1 - self.mean) / self.std
        r1 = self.g1(self.pre(x1))
        r2 = self.g2(r1)
        r3 = self.g3(r2)
        gates = self.ca(torch.cat([r1, r2, r3], 1)).chunk(3, dim=1)
        fused = gates[0] * r1 + gates[1] * r2 + gates[2] * r3
        return (self.post(self.palayer(fused)) + x1).contiguous()
