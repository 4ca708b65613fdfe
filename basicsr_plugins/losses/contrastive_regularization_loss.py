"""CR: close to the clean image, far from the degraded input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides
from basicsr_plugins.losses.feature_distance import FeatureDistance, as_references

__all__ = ["CR_LAYERS", "EPSILON", "ContrastiveRegularizationLoss", "contrast_ratio", "contrast_sums"]

#: AECR-Net's layers and weights (models/CR.py), shared by C2PNet.
CR_LAYERS: dict[str, float] = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1}
EPSILON = 1e-7


def contrast_ratio(positive: Tensor, negative: Tensor) -> Tensor:
    """Return ``d(a, p) / (d(a, n) + 1e-7)``."""
    return positive / (negative + EPSILON)


def contrast_sums(
    distance: FeatureDistance, output: Tensor, target: Tensor, negatives: Tensor, shares: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the layers' weighted sum of ratios and, detached, those of the distances above and below the bar.

    Args:
        distance: Of features, with the layers' weights.
        output: The network's output ``(n, 3, h, w)``.
        target: The clean image, of that shape.
        negatives: ``(k, n, 3, h, w)``.
        shares: The weight of each negative in the distance below the bar.
    """
    groups = {"positive": (as_references(target, output, "target"), [1.0]), "negative": (negatives, shares)}
    ratio = above = below = output.new_zeros(())
    for layer, of in distance.layer_distances(output, groups).items():
        weight, positive, negative = distance.weight(layer), of["positive"][0], of["negative"][0]
        ratio = ratio + weight * contrast_ratio(positive, negative)
        above = above + weight * positive.detach()
        below = below + weight * negative.detach()
    return ratio, above, below


@provides("loss")
class ContrastiveRegularizationLoss(nn.Module):
    """Contrastive regularization of AECR-Net (Wu et al., CVPR 2021), equation 3.

    ``beta * sum_l w_l * d_l(output, target) / (d_l(output, lq) + 1e-7)`` with ``d_l`` the mean absolute difference of
    VGG19 features of raw [0, 1] images; no gradient reaches the target or the input.

    Args:
        loss_weight: beta. Default 0.1, which the paper is remembered to use; the released script's default is 0.
        features, layers, weights, range_norm: As for ``SPNLoss``; published: VGG19, relu1_1 to relu5_1.
        use_input_norm: Published: False.

    Raises:
        OptionError: Unknown backbone or layer, a negative weight.
        DependencyError: The VGG's weights cannot be had.

    Example:
        Under ``train.spn_opt``::

            loss: {type: ContrastiveRegularizationLoss, loss_weight: 0.1}
    """

    inputs = ("target", "lq")

    def __init__(
        self,
        loss_weight: float = 0.1,
        features: Union[str, dict[str, Any], nn.Module] = "vgg19",
        layers: Union[dict[str, float], list[str], None] = None,
        weights: str = "auto",
        range_norm: bool = False,
        use_input_norm: bool = False,
    ) -> None:
        super().__init__()
        if loss_weight < 0:
            raise OptionError(f"loss_weight: must be 0 or more, got {loss_weight!r}.")
        self.loss_weight = loss_weight
        self.distance = FeatureDistance(features, layers, weights, range_norm, use_input_norm, published=CR_LAYERS)

    def terms(self, output: Tensor, target: Tensor, lq: Tensor) -> dict[str, Tensor]:
        """Return the loss ``l_cr`` and, detached, the two weighted distances it balances.

        Args:
            output: The network's output ``(n, 3, h, w)``.
            target: The clean image, of that shape.
            lq: The degraded input, of that shape.
        """
        self.distance.check_range(target, strict=True)
        negatives = as_references(lq, output, "lq")
        ratio, positive, negative = contrast_sums(self.distance, output, target, negatives, [1.0])
        return {"l_cr": self.loss_weight * ratio, "cr_positive": positive, "cr_negative": negative}

    def forward(self, output: Tensor, target: Tensor, lq: Tensor) -> Tensor:
        """Return the loss, a scalar; see ``terms`` for the shapes."""
        return self.terms(output, target, lq)["l_cr"]
