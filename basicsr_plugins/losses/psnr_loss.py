"""PSNR as a loss: NAFNet's reconstruction loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides

__all__ = ["PSNRLoss"]


@provides("loss")
class PSNRLoss(nn.Module):
    """The negative peak signal-to-noise ratio in dB, for images with a range of 1 (HINet and NAFNet train with it).

    ``loss_weight * mean_n 10 log10(mean((pred - target)^2) + 1e-8)``: every image of the batch counts alike.

    Args:
        loss_weight: NAFNet's configurations: 1.
        reduction: ``mean``; stock's key, nothing else makes sense here.

    Raises:
        OptionError: Another reduction.

    Example::

        pixel_opt: {type: PSNRLoss, loss_weight: 1.0, reduction: mean}
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        if reduction != "mean":
            raise OptionError(f"reduction: PSNRLoss has only 'mean', got {reduction!r}.")
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            pred: ``(n, c, h, w)``.
            target: Of that shape.
        """
        error = ((pred - target) ** 2).flatten(1).mean(dim=1)
        return self.loss_weight * 10 / math.log(10) * torch.log(error + 1e-8).mean()
