"""Cross-entropy with BasicSR's ``loss_weight``: for whole images (n, classes) and for maps (n, classes, h, w)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides

__all__ = ["CrossEntropyLoss"]


@provides("loss")
class CrossEntropyLoss(nn.Module):
    """Mean cross-entropy between logits and integer labels.

    Args:
        loss_weight: Factor of the result.
        ignore_index: Labels that do not count. Where none counts the loss is 0, and so is its gradient.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).

    Raises:
        OptionError: A label_smoothing out of its range.

    Example:
        >>> import torch
        >>> CrossEntropyLoss()(torch.zeros(1, 4), torch.tensor([-100])).item()
        0.0

    .. code-block:: yaml

        train:
          classification_opt: {type: CrossEntropyLoss, loss_weight: 1.0}
    """

    def __init__(self, loss_weight: float = 1.0, ignore_index: int = -100, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise OptionError(
                f"CrossEntropyLoss: label_smoothing must be at least 0 and below 1, got {label_smoothing}."
            )
        self.loss_weight = loss_weight
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of ``logits`` (n, classes, ...).

        Args:
            logits: (n, classes, ...).
            labels: Integers (n, ...), or shares of the classes (n, classes, ...).
        """
        loss = F.cross_entropy(
            logits.float(), labels, ignore_index=self.ignore_index, label_smoothing=self.label_smoothing
        )
        if not labels.is_floating_point():  # a mean over nothing is NaN
            loss = torch.where((labels == self.ignore_index).all(), torch.zeros_like(loss), loss)
        return self.loss_weight * loss
