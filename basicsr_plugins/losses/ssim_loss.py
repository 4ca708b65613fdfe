"""Structural similarity as a loss: IDT's reconstruction loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides

__all__ = ["SSIMLoss", "ssim"]


def ssim(pred: Tensor, target: Tensor, window: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the mean structural similarity (Wang et al., 2004).

    Args:
        pred: ``(n, c, h, w)``.
        target: Of that shape.
        window: One-dimensional weights that add up to 1; borders are filled with zeros, as in the common PyTorch code.
        data_range: Difference of the largest and the smallest value.
    """
    channels = pred.shape[1]

    def local_mean(x: Tensor) -> Tensor:
        size = len(window)
        row = window.to(x).view(1, 1, 1, size).expand(channels, 1, 1, size)
        x = F.conv2d(x, row, padding=(0, size // 2), groups=channels)
        return F.conv2d(x, row.transpose(2, 3), padding=(size // 2, 0), groups=channels)

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_p, mean_t = local_mean(pred), local_mean(target)
    variance_p = local_mean(pred * pred) - mean_p * mean_p
    variance_t = local_mean(target * target) - mean_t * mean_t
    covariance = local_mean(pred * target) - mean_p * mean_t
    similarity = (2 * mean_p * mean_t + c1) * (2 * covariance + c2)
    return (similarity / ((mean_p**2 + mean_t**2 + c1) * (variance_p + variance_t + c2))).mean()


@provides("loss")
class SSIMLoss(nn.Module):
    """``-loss_weight * SSIM(pred, target)``, the loss IDT is trained with (11 x 11 Gaussian window, sigma 1.5).

    Args:
        loss_weight: IDT's script: 1.
        window_size: Odd; IDT's script: 11.
        sigma: Of the window, pixels; the usual 1.5.
        reduction: ``mean``; stock's key.

    Raises:
        OptionError: An even window, another reduction.

    Example::

        pixel_opt: {type: SSIMLoss, loss_weight: 1.0}
    """

    window: Tensor

    def __init__(
        self, loss_weight: float = 1.0, window_size: int = 11, sigma: float = 1.5, reduction: str = "mean"
    ) -> None:
        super().__init__()
        if window_size < 1 or window_size % 2 == 0 or sigma <= 0:
            raise OptionError(f"window_size must be odd and sigma above 0, got {window_size} and {sigma}.")
        if reduction != "mean":
            raise OptionError(f"reduction: SSIMLoss has only 'mean', got {reduction!r}.")
        self.loss_weight = loss_weight
        position = torch.arange(window_size, dtype=torch.float32) - window_size // 2
        weights = torch.exp(-(position**2) / (2 * sigma**2))
        self.register_buffer("window", weights / weights.sum(), persistent=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar of -1 at best.

        Args:
            pred: ``(n, c, h, w)`` in [0, 1].
            target: Of that shape.
        """
        with torch.autocast(pred.device.type, enabled=False):  # differences of squares: no place for half precision
            return -self.loss_weight * ssim(pred.float(), target.float(), self.window)
