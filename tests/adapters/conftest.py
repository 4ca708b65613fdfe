"""A tiny network with every kind of layer that an adapter may meet, and adapters of it with random factors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from basicsr_plugins.adapters import Factor


class Mixed(nn.Module):
    """Plain, strided and depthwise convolutions, 1x1 ones with and without bias, a linear layer on a pooled vector."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.down = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.pointwise = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attn_out = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.gate = nn.Linear(2 * channels, 2 * channels)
        self.output = nn.Conv2d(2 * channels, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.pointwise(torch.relu(self.down(self.first(x)))))
        y = y + self.attn_out(self.depthwise(y))
        y = y * torch.sigmoid(self.gate(y.mean(dim=(2, 3))))[..., None, None]
        return x + nn.functional.pixel_shuffle(self.output(y), 2)


ADAPTED = ["first", "down", "pointwise", "attn_out", "gate", "output"]


def random_factors(net: nn.Module, layers=ADAPTED, rank: int = 2, size: float = 0.3) -> dict[str, Factor]:
    """One adapter with random factors on the given layers."""
    factors = {}
    for name in layers:
        weight = net.get_submodule(name).weight
        down = torch.randn(rank, *weight.shape[1:]) / weight[0].numel() ** 0.5
        factors[name] = Factor(down, torch.randn(weight.shape[0], rank) * size)
    return factors


@pytest.fixture
def net() -> nn.Module:
    """The tiny network in eval mode."""
    torch.manual_seed(1)
    return Mixed().eval()


@pytest.fixture
def three(net) -> dict:
    """Three adapters of ``net``; the second leaves some layers alone and has another rank."""
    torch.manual_seed(2)
    return {
        "rain": random_factors(net),
        "haze": random_factors(net, ADAPTED[2:5], rank=3),
        "noise": random_factors(net),
    }
