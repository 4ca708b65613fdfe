"""PCL: closer to sharpened clean images than to blurred ones, by the angle between features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr_plugins.core.errors import OptionError, one_of
from basicsr_plugins.core.registration import provides
from basicsr_plugins.losses.contrastive_regularization_loss import CR_LAYERS
from basicsr_plugins.losses.feature_distance import FeatureDistance, as_references
from basicsr_plugins.losses.pcl_samples import pcl_negatives, pcl_positives

__all__ = ["PCLLoss", "cosine_margin", "info_nce", "similarity"]

L1_EPSILON = 3e-7
LAYERS = dict.fromkeys(CR_LAYERS, 1.0)
FORMS = ("infonce", "cosine", "l1")


def similarity(image: Tensor, references: Tensor) -> Tensor:
    """Return the spatial mean of the channel-wise cosine.

    Args:
        image: Features ``(n, c, h, w)``.
        references: Features ``(k, n, c, h, w)``.

    Returns:
        ``(k, n)``, each in [-1, 1].
    """
    return F.cosine_similarity(image.unsqueeze(0), references, dim=2).mean(dim=(-2, -1))


def info_nce(positive: Tensor, negative: Tensor) -> Tensor:
    """Return ``-log(exp p_j / (exp p_j + sum_m exp n_m))``, the mean over positives and images (no temperature).

    Args:
        positive: Similarities ``(j, n)``.
        negative: Similarities ``(m, n)``.
    """
    rest = negative.logsumexp(dim=0, keepdim=True)
    return (torch.logaddexp(positive, rest) - positive).mean()


def cosine_margin(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean similarity to the negatives minus that to the positives."""
    return negative.mean() - positive.mean()


@provides("loss")
class PCLLoss(nn.Module):
    """Practical contrastive learning for super-resolution (Wu, Jiang, Liu, TNNLS 2023, arXiv 2111.13924).

    The positives are the target and ``positives`` sharpened versions of it, the negatives the up-sampled input and
    ``negatives`` blurred targets. Per layer and positive, ``-log(exp sim(a,p) / (exp sim(a,p) + sum exp sim(a,n)))``;
    the mean over positives and layers. The gradient flows into the output; the published script computes the output's
    features without a graph, so that its contrastive term trains nothing.

    Args:
        loss_weight: Default 5 (RCAN's script); NLSN's has 3.
        form: ``infonce`` (RCAN's script), ``cosine`` (NLSN's) or ``l1``, ``d(a,p) / (d(a,n) + 3e-7)``.
        positives: Sharpened versions; published 3.
        negatives: Blurred versions; published 3.
        features, layers, weights, range_norm, use_input_norm: As for ``ContrastiveRegularizationLoss``. The paper
            takes its jointly trained discriminator's features; give that as ``features`` to do so.
        seed: Of the drawn samples; None: torch's own generator.

    Raises:
        OptionError: Unknown form, backbone or layer, a negative number.
        DependencyError: The VGG's weights cannot be had.

    Example:
        Under ``train.spn_opt``::

            loss: {type: PCLLoss, loss_weight: 5.0, form: infonce}
    """

    inputs = ("target", "lq")

    def __init__(
        self,
        loss_weight: float = 5.0,
        form: str = "infonce",
        positives: int = 3,
        negatives: int = 3,
        features: Union[str, dict[str, Any], nn.Module] = "vgg19",
        layers: Union[dict[str, float], list[str], None] = None,
        weights: str = "auto",
        range_norm: bool = False,
        use_input_norm: bool = False,
        seed: Optional[int] = None,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise OptionError(f"form: {one_of(form, FORMS, 'form')}")
        if loss_weight < 0 or positives < 0 or negatives < 0:
            raise OptionError(
                f"loss_weight, positives and negatives must be 0 or more, got {loss_weight}, {positives}, {negatives}."
            )
        self.loss_weight = loss_weight
        self.form = form
        self.positives = positives
        self.negatives = negatives
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.distance = FeatureDistance(features, layers, weights, range_norm, use_input_norm, published=LAYERS)

    def get_extra_state(self) -> Tensor:
        """Return the state of the loss's own generator, so that a resumed run draws on; empty without ``seed``."""
        return torch.empty(0, dtype=torch.uint8) if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the generator."""
        if self.generator is not None and state.numel():
            self.generator.set_state(state.cpu())

    def samples(self, target: Tensor, lq: Tensor) -> tuple[Tensor, Tensor]:
        """Return the drawn positives ``(j, n, 3, h, w)`` and negatives ``(m, n, 3, h, w)``, in the images' range."""
        with torch.no_grad():
            if self.distance.range_norm:
                target, lq = (target + 1) / 2, (lq + 1) / 2
            positive = pcl_positives(target, self.positives, self.generator)
            negative = pcl_negatives(target, lq, self.negatives, self.generator)
            return (positive * 2 - 1, negative * 2 - 1) if self.distance.range_norm else (positive, negative)

    def contrast(
        self, output: Tensor, positives: Union[Tensor, Sequence[Tensor]], negatives: Union[Tensor, Sequence[Tensor]]
    ) -> Tensor:
        """Return the loss for given samples, each ``(n, 3, h, w)``, before ``loss_weight``."""
        positives = as_references(positives, output, "positives")
        negatives = as_references(negatives, output, "negatives")
        if self.form == "l1":
            groups = {
                "positive": (positives, [1 / len(positives)] * len(positives)),
                "negative": (negatives, [1 / len(negatives)] * len(negatives)),
            }
            layers = self.distance.layer_distances(output, groups)
            ratios = [of["positive"][0] / (of["negative"][0] + L1_EPSILON) for of in layers.values()]
            return self._mean(layers, ratios)
        form = info_nce if self.form == "infonce" else cosine_margin
        own, others = self.distance.pairs(output, torch.cat([positives, negatives]))
        values = []
        for layer, references in others:
            near = similarity(own[layer], references)
            values.append(form(near[: len(positives)], near[len(positives) :]))
        return self._mean(own, values)

    def _mean(self, layers: dict[str, Any], values: list[Tensor]) -> Tensor:
        weights = [self.distance.weight(layer) for layer in layers]
        total: Any = sum(weight * value for weight, value in zip(weights, values))
        return total / sum(weights)

    def terms(self, output: Tensor, target: Tensor, lq: Tensor) -> dict[str, Tensor]:
        """Return the loss ``l_pcl``.

        Args:
            output: The network's output ``(n, 3, h, w)``.
            target: The clean image, of that shape.
            lq: The degraded input, of that shape or smaller.
        """
        self.distance.check_range(target, strict=True)
        return {"l_pcl": self.loss_weight * self.contrast(output, *self.samples(target, lq))}

    def forward(self, output: Tensor, target: Tensor, lq: Tensor) -> Tensor:
        """Return the loss, a scalar; see ``terms`` for the shapes."""
        return self.terms(output, target, lq)["l_pcl"]
