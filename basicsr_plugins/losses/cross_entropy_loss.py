"""Cross-entropy with BasicSR's ``loss_weight``: for whole images (n, classes) and for maps (n, classes, h, w)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from basicsr_plugins.core.registration import provides

__all__ = ["CrossEntropyLoss"]


@provides("loss")
class CrossEntropyLoss(nn.Module):
    """Mean cross-entropy between logits and integer labels.

    Args:
        loss_weight: Factor of the result.
        ignore_index: Labels that do not count.

    .. code-block:: yaml

        train:
          classification_opt: {type: CrossEntropyLoss, loss_weight: 1.0}
    """

    def __init__(self, loss_weight: float = 1.0, ignore_index: int = -100) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of ``logits`` (n, classes, ...) for integer ``labels`` (n, ...)."""
        return self.loss_weight * F.cross_entropy(logits.float(), labels, ignore_index=self.ignore_index)
