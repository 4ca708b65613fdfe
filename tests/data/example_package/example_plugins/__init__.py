"""One object of each kind, as another package adds them to BasicSR through basicsr_plugins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from basicsr_plugins.core.options import option
from basicsr_plugins.data.degradation_dataset import DegradationDataset
from basicsr_plugins.degradations.base import Degradation, Degraded
from basicsr_plugins.models.restoration_model import RestorationModel


class ExampleNet(nn.Module):
    """One convolution."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


class ExampleLoss(nn.Module):
    """Mean squared error."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.loss_weight * (pred - target).square().mean()


class ExampleDataset(DegradationDataset):
    """A data set under another name."""


def calculate_example(img: np.ndarray, img2: np.ndarray, **_: object) -> float:
    """Largest difference."""
    return float(np.abs(img.astype(float) - img2.astype(float)).max())


class ExampleModel(RestorationModel):
    """A recipe under another name."""


@dataclass
class ExampleDegradation(Degradation):
    """Subtract a constant."""

    short = "example"

    amount: float = option(0.1, "what is subtracted")

    def draw(self, rng, size, severity):
        return {"amount": self.amount}

    def apply(self, image, params):
        return Degraded(np.clip(image - np.float32(params["amount"]), 0, 1), dict(params))
