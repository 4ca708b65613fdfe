"""DCPT's pair of terms for a plain PyTorch loop."""

from __future__ import annotations

from torch import Tensor, nn

from basicsr_plugins.core.registration import provides
from basicsr_plugins.losses.focal_loss import focal_loss

__all__ = ["DCPTLoss"]


@provides("loss")
class DCPTLoss(nn.Module):
    """Generation and classification terms of DCPT: ``alpha * |x - g(x)|_1 + FL(dc(features of g(y)), d)``.

    x is a clean image, y a degraded one, d its degradation (arXiv 2501.15510; weights and gamma from the authors'
    config 884c00d). Both graphs live until the sum is differentiated; call ``generation`` and ``classification``
    one after the other, each with its own backward, to hold only one at a time: the gradients add up to the same.

    Args:
        pixel_weight: alpha.
        classification_weight: Weight of the focal term.
        gamma: Focal exponent; 0 is cross-entropy.

    Example:
        With networks, a tap and a batch of yours::

            criterion = DCPTLoss()
            losses = criterion(net_g(clean), clean, net_dc(tap(degraded)), labels)
            sum(losses.values()).backward()
    """

    def __init__(self, pixel_weight: float = 1.0, classification_weight: float = 1.0, gamma: float = 2.0) -> None:
        super().__init__()
        self.pixel_weight = pixel_weight
        self.classification_weight = classification_weight
        self.gamma = gamma

    def generation(self, output: Tensor, clean: Tensor) -> Tensor:
        """Return the weighted mean absolute difference of two images (n, c, h, w)."""
        return self.pixel_weight * (output.float() - clean).abs().mean()

    def classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted focal loss of logits (n, classes) for labels (n,)."""
        return self.classification_weight * focal_loss(logits.float(), labels, self.gamma)

    def forward(self, output: Tensor, clean: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return ``{"l_pix": ..., "l_cls": ...}``.

        Args:
            output: g(clean), (n, c, h, w).
            clean: The clean images, (n, c, h, w).
            logits: dc(features of g(degraded)), (n, classes).
            labels: Degradations, (n,) integers.
        """
        return {"l_pix": self.generation(output, clean), "l_cls": self.classification(logits, labels)}
