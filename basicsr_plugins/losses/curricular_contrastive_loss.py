"""CCR: contrastive regularization whose negatives are weighted by the network's validation PSNR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides
from basicsr_plugins.losses.contrastive_regularization_loss import CR_LAYERS, contrast_sums
from basicsr_plugins.losses.feature_distance import FeatureDistance, as_references

__all__ = ["ITS_THRESHOLDS", "OTS_THRESHOLDS", "CurricularContrastiveLoss", "curriculum_weights"]

#: PSNR (dB) of C2PNet's six pre-trained dehazers, on ITS and OTS (option.py).
ITS_THRESHOLDS = (17.0, 19.0, 31.0, 32.0, 36.0, 40.0)
OTS_THRESHOLDS = (17.43, 18.12, 30.86, 31.98, 32.98, 33.57)
STEP = 0.25
INPUT_WEIGHT = 6.0


def curriculum_weights(
    best_psnr: float, thresholds: Sequence[float], step: float = STEP, input_weight: float = INPUT_WEIGHT
) -> tuple[list[float], float]:
    """Return the weights of the negatives and of the input, which add up to 1 (C2R.py).

    Args:
        best_psnr: The best validation PSNR so far, dB; 0 before the first validation.
        thresholds: Each negative's own PSNR, dB.
        step: What a negative that has been surpassed gains, and another one loses.
        input_weight: The raw weight of the degraded input.
    """
    raw = [1 + step if best_psnr > threshold else 1 - step for threshold in thresholds]
    total = sum(raw) + input_weight
    return [value / total for value in raw], input_weight / total


@provides("loss")
class CurricularContrastiveLoss(nn.Module):
    """Curricular contrastive regularization of C2PNet (Zheng et al., CVPR 2023).

    ``0.2 * sum_l w_l * d_l(output, target) / (sum_k g_k d_l(output, n_k) + g_x d_l(output, lq) + 1e-7)`` with ``n_k``
    the outputs of pre-trained networks. Call ``update_curriculum`` after each validation; the state is two buffers,
    saved and resumed with the module's ``state_dict``.

    Args:
        loss_weight: Default 0.2 (option.py).
        thresholds: Each negative's own PSNR in dB, in the order of the negatives; default those for ITS.
        curriculum_step: Default 0.25 (C2R.py).
        input_weight: The input's raw weight, default 6 (C2R.py).
        features, layers, weights, range_norm, use_input_norm: As for ``ContrastiveRegularizationLoss``.

    Raises:
        OptionError: Unknown backbone or layer, no threshold, a negative weight.
        DependencyError: The VGG's weights cannot be had.

    Example:
        Under ``train.spn_opt``, with six fixed networks as negatives::

            loss: {type: CurricularContrastiveLoss, thresholds: [17, 19, 31, 32, 36, 40]}
    """

    inputs = ("target", "lq", "negatives")
    best_psnr: Tensor
    best_ssim: Tensor

    def __init__(
        self,
        loss_weight: float = 0.2,
        thresholds: Optional[list[float]] = None,
        curriculum_step: float = STEP,
        input_weight: float = INPUT_WEIGHT,
        features: Union[str, dict[str, Any], nn.Module] = "vgg19",
        layers: Union[dict[str, float], list[str], None] = None,
        weights: str = "auto",
        range_norm: bool = False,
        use_input_norm: bool = False,
    ) -> None:
        super().__init__()
        if loss_weight < 0 or input_weight < 0 or not 0 <= curriculum_step < 1:
            raise OptionError(
                "loss_weight and input_weight must be 0 or more, curriculum_step in [0, 1), "
                f"got {loss_weight!r}, {input_weight!r}, {curriculum_step!r}."
            )
        self.thresholds = list(ITS_THRESHOLDS if thresholds is None else thresholds)
        if not self.thresholds:
            raise OptionError("thresholds: one PSNR per negative is needed, got none (N = 0).")
        self.loss_weight = loss_weight
        self.curriculum_step = curriculum_step
        self.input_weight = input_weight
        self.distance = FeatureDistance(features, layers, weights, range_norm, use_input_norm, published=CR_LAYERS)
        self.register_buffer("best_psnr", torch.zeros((), dtype=torch.float64))
        self.register_buffer("best_ssim", torch.zeros((), dtype=torch.float64))
        self._reweight()

    def update_curriculum(self, psnr: float, ssim: float) -> bool:
        """Tell the curriculum a validation result; returns whether both improved, which alone moves it on."""
        if psnr <= float(self.best_psnr) or ssim <= float(self.best_ssim):
            return False
        self.best_psnr.fill_(psnr)
        self.best_ssim.fill_(ssim)
        self._reweight()
        return True

    def _reweight(self) -> None:
        self.negative_weights, self.lq_weight = curriculum_weights(
            float(self.best_psnr), self.thresholds, self.curriculum_step, self.input_weight
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._reweight()

    def terms(
        self, output: Tensor, target: Tensor, lq: Tensor, negatives: Union[Tensor, Sequence[Tensor]]
    ) -> dict[str, Tensor]:
        """Return the loss ``l_ccr`` and, detached, the two weighted distances it balances.

        Args:
            output: The network's output ``(n, 3, h, w)``.
            target: The clean image, of that shape.
            lq: The degraded input, of that shape.
            negatives: As many images of that shape as there are thresholds.
        """
        self.distance.check_range(target, strict=True)
        others = as_references(negatives, output)
        if len(others) != len(self.thresholds):
            raise OptionError(
                f"thresholds: {len(self.thresholds)} values for {len(others)} negatives; give one PSNR per negative."
            )
        others = torch.cat([others, as_references(lq, output, "lq")])
        shares = [*self.negative_weights, self.lq_weight]
        ratio, positive, negative = contrast_sums(self.distance, output, target, others, shares)
        return {"l_ccr": self.loss_weight * ratio, "ccr_positive": positive, "ccr_negative": negative}

    def forward(self, output: Tensor, target: Tensor, lq: Tensor, negatives: Union[Tensor, Sequence[Tensor]]) -> Tensor:
        """Return the loss, a scalar; see ``terms`` for the shapes."""
        return self.terms(output, target, lq, negatives)["l_ccr"]
