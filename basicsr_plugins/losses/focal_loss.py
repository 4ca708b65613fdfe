"""Focal loss over classes: cross-entropy that down-weights well-classified examples."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides

__all__ = ["FocalLoss", "focal_loss"]


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: Optional[Tensor] = None) -> Tensor:
    """Return ``mean((1 - p_t)^gamma * -log p_t)``; gamma 0 is cross-entropy.

    Args:
        logits: ``(n, classes)``, any range.
        labels: ``(n,)`` integers.
        gamma: How strongly well-classified examples are down-weighted.
        alpha: ``(classes,)`` weights, or None.
    """
    log_p = F.log_softmax(logits, dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    # 1 - p_t through expm1: near p_t = 1 the plain difference loses every digit, and so would its gradient. Clamped
    # above 0, where the power has no gradient for gamma < 1
    smallest = torch.finfo(log_p.dtype).tiny
    losses = (-torch.expm1(log_p)).clamp_min(smallest).pow(gamma) * -log_p if gamma else -log_p
    if alpha is not None:
        losses = losses * alpha.to(losses)[labels]
    return losses.mean()


@provides("loss")
class FocalLoss(nn.Module):
    """Focal loss (Lin et al., 2017) as DCPT uses it: gamma 2, no alpha (DCPT arXiv 2501.15510, config 884c00d).

    Args:
        gamma: Exponent; 0 is cross-entropy.
        alpha: One weight per class, or None.
        loss_weight: Factor of the result.

    Raises:
        OptionError: A negative gamma; in a call, another number of weights than of classes.

    Example:
        >>> round(FocalLoss(gamma=0.0)(torch.zeros(4, 5), torch.tensor([0, 1, 2, 3])).item(), 4)  # log 5
        1.6094

    .. code-block:: yaml

        train:
          classification_opt: {type: FocalLoss, gamma: 2.0, loss_weight: 1.0}
    """

    #: A batch's loss is the mean of its images' losses, so that it can be taken in parts.
    mean_over_images = True
    alpha: Optional[Tensor]

    def __init__(self, gamma: float = 2.0, alpha: Optional[list[float]] = None, loss_weight: float = 1.0) -> None:
        super().__init__()
        if gamma < 0:
            raise OptionError(f"FocalLoss: gamma must be 0 or more, got {gamma}.")
        self.gamma = gamma
        self.loss_weight = loss_weight
        self.register_buffer("alpha", None if alpha is None else torch.tensor(alpha), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of ``logits`` (n, classes) for integer ``labels`` (n,)."""
        if self.alpha is not None and len(self.alpha) != logits.shape[1]:
            raise OptionError(
                f"FocalLoss: alpha has {len(self.alpha)} weights for {logits.shape[1]} classes; give one per class."
            )
        return self.loss_weight * focal_loss(logits.float(), labels, self.gamma, self.alpha)
