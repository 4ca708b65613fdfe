"""SPN: push the output away from what earlier states of the same network make of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides
from basicsr_plugins.losses.feature_distance import FeatureDistance, as_references

__all__ = ["SPN_LAYERS", "SPNLoss"]

#: Layers and weights of the released configuration (FFANet_RESIDE_IN_fromScratch.yml); the paper names none.
SPN_LAYERS: dict[str, float] = {"relu1_2": 0.2, "relu2_2": 0.3, "relu3_3": 0.5}


@provides("loss")
class SPNLoss(nn.Module):
    """The self-prior negative loss of "Learning from History" (Wu et al., AAAI 2024), equations 2 to 4.

    ``-lambda * (1/N) * sum_i sum_l w_l * mean|phi_l(output) - phi_l(negative_i)|``: the distance is maximised, so the
    value is negative and is *added* to the reconstruction loss. No gradient reaches the negatives. The loss is
    unbounded below; ``spn_guard.SPNGuard`` watches for the collapse that a large lambda brings.

    Args:
        loss_weight: lambda. Default 1e-4 (Table 8); the released FFA-Net configuration has 1e-3. It belongs to its
            layers and does not carry over to others.
        features: ``vgg16`` (released configuration), ``vgg19``, ``pixel``, a module, or ``{type: SomeArch, ...}``.
        layers: Layer name to weight; for a VGG ``{relu1_2: 0.2, relu2_2: 0.3, relu3_3: 0.5}`` if left out.
        weights: ``auto``, ``torchvision``, ``random`` or the path of the VGG's weights.
        range_norm: The images lie in [-1, 1] instead of [0, 1] (DehazeFormer).
        use_input_norm: Normalise by ImageNet's statistics (released configuration).
        negative_precision: ``fp32``, ``bf16`` or ``fp16`` for the negatives' pass through the VGG.
        negative_batch: Negatives per VGG pass; None: all in one.

    Raises:
        OptionError: Unknown backbone or layer, a negative weight.
        DependencyError: The VGG's weights cannot be had.

    Example:
        >>> import torch
        >>> spn = SPNLoss(weights="random")
        >>> bool(spn(torch.rand(1, 3, 32, 32), [torch.rand(1, 3, 32, 32)]) < 0)
        True

        In an option file, under ``train.spn_opt``::

            loss: {type: SPNLoss, loss_weight: !!float 1e-4}
    """

    #: What ``forward`` takes after the output.
    inputs = ("negatives",)

    def __init__(
        self,
        loss_weight: float = 1e-4,
        features: Union[str, dict[str, Any], nn.Module] = "vgg16",
        layers: Union[dict[str, float], list[str], None] = None,
        weights: str = "auto",
        range_norm: bool = False,
        use_input_norm: bool = True,
        negative_precision: str = "fp32",
        negative_batch: Optional[int] = None,
    ) -> None:
        super().__init__()
        if loss_weight < 0:
            raise OptionError(f"loss_weight: must be 0 or more (the sign is the loss's own), got {loss_weight!r}.")
        self.loss_weight = loss_weight
        self.distance = FeatureDistance(
            features, layers, weights, range_norm, use_input_norm, negative_precision, negative_batch, SPN_LAYERS
        )

    def terms(self, output: Tensor, negatives: Union[Tensor, Sequence[Tensor]]) -> dict[str, Tensor]:
        """Return the loss ``l_spn`` and, detached, ``spn_distance``: the mean feature distance before lambda.

        Args:
            output: The network's output ``(n, 3, h, w)``.
            negatives: N outputs ``(n, 3, h, w)``, in a sequence or stacked ``(N, n, 3, h, w)``.
        """
        distance, _ = self.distance(output, as_references(negatives, output))
        return {"l_spn": -self.loss_weight * distance, "spn_distance": distance.detach()}

    def forward(self, output: Tensor, negatives: Union[Tensor, Sequence[Tensor]]) -> Tensor:
        """Return the loss, a scalar of 0 or less; see ``terms`` for the shapes."""
        return self.terms(output, negatives)["l_spn"]
