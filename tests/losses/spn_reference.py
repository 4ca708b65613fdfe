"""Slow, loop-written references of the formulas, shared by the tests of the contrastive losses."""

from __future__ import annotations

import torch
from torch import nn

LAYER_INDICES = {"relu1_1": 1, "relu1_2": 3, "relu2_1": 6, "relu2_2": 8, "relu3_1": 11, "relu3_3": 15}


class TinyFeatures(nn.Module):
    """Two small convolutions as a stand-in for a VGG."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 4, 3, stride=2, padding=1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        first = torch.tanh(self.first(images))
        return {"first": first, "second": torch.tanh(self.second(first))}


def mean_absolute(a: torch.Tensor, b: torch.Tensor) -> float:
    total = 0.0
    for x, y in zip(a.flatten().tolist(), b.flatten().tolist()):
        total += abs(x - y)
    return total / a.numel()


def images(count: int, seed: int = 0, size: int = 8, batch: int = 2, dtype: torch.dtype = torch.float32) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, 3, size, size, generator=generator, dtype=dtype) for _ in range(count)]
