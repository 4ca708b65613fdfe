"""Binary cross-entropy for images that hold several degradations at once: one yes or no for each."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from basicsr_plugins.core.registration import provides

__all__ = ["BinaryCrossEntropyLoss"]


@provides("loss")
class BinaryCrossEntropyLoss(nn.Module):
    """Mean binary cross-entropy between logits and targets of 0 and 1.

    Args:
        loss_weight: Factor of the result.

    Example:
        >>> import torch
        >>> round(BinaryCrossEntropyLoss()(torch.zeros(2, 4), torch.ones(2, 4)).item(), 4)  # log 2
        0.6931

    .. code-block:: yaml

        train:
          labels: [low, haze, rain, snow, [low, haze], [low, rain]]   # of DCPTModel
          classification_opt: {type: BinaryCrossEntropyLoss}
    """

    #: Wants a 0 or 1 per class, not the number of one class.
    multi_label = True
    #: A batch's loss is the mean of its images' losses, so that it can be taken in parts.
    mean_over_images = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of ``logits`` (n, classes) for ``targets`` (n, classes)."""
        return self.loss_weight * F.binary_cross_entropy_with_logits(logits.float(), targets.float())
