"""DCPT: pre-train a restoration network by telling degradations apart and drawing clean images (arXiv 2501.15510)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional

from torch import Tensor

from basicsr_plugins.models.degradation_classification import DegradationClassification
from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.options import option
from basicsr_plugins.registration import provides
from basicsr_plugins.training.settings import TrainSettings

__all__ = ["DCPTModel"]


@dataclass
class DCPTSettings(TrainSettings):
    """Section ``train`` of DCPT."""

    optim_dc: Optional[dict[str, Any]] = option(None, "optimizer of the degradation classifier net_dc")
    classification_opt: dict[str, Any] = option(
        {"type": "FocalLoss", "gamma": 2.0}, "classification loss", source="DCPT config 884c00d"
    )
    feature_layers: Optional[list[str]] = option(
        None,
        "modules of net_g to tap, finest feature first; ~ takes the network's preset",
        source="DCPT config 884c00d",
    )
    pixel_input: Literal["gt", "lq"] = option(
        "gt", "image that net_g draws the clean one from: gt as published, lq is the direct-training ablation"
    )


@provides("model")
class DCPTModel(DegradationClassification, RestorationModel):
    """Degradation classification pre-training.

    Two phases an iteration, each with its own backward pass; then both optimizers step once. The gradients are those of
    one joint backward pass, the two graphs never live together.

    .. code-block:: yaml

        model_type: DCPTModel
        network_g: {type: Restormer, preset: dcpt}
        network_dc: {type: DegradationClassifier, num_classes: 5}
        train:
          total_iter: 100000
          optim_g: {type: AdamW, lr: !!float 2e-4, weight_decay: 0, betas: [0.9, 0.999]}
          optim_dc: {type: AdamW, lr: !!float 5e-5, weight_decay: !!float 1e-4, betas: [0.9, 0.999]}
          pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
          classification_opt: {type: FocalLoss, gamma: 2.0}
    """

    Settings: ClassVar[type[TrainSettings]] = DCPTSettings
    network_names: ClassVar[tuple[str, ...]] = ("g", "dc")
    trained_networks: ClassVar[tuple[str, ...]] = ("g", "dc")

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield the generation loss, then the classification loss."""
        self.need("lq", "gt", "degradation")
        # generation: a clean image in, the same clean image out (or, for the ablation, from the degraded one)
        shown = self.gt if self.settings.pixel_input == "gt" else self.lq
        yield self.restoration_losses(self.restore(shown), self.gt, shown)
        # classification: a degraded image in, features of the decoder half out, which degradation was it?
        yield {"l_cls": self.cri_cls(self.net_dc(self.tap(self.lq)), self.degradation)}
