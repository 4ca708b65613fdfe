"""DC-guided training: transfer a restoration network to another task under a frozen classifier (DCPT)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional

import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import non_negative, option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.models.parts.degradation_classification import DegradationClassification
from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.training.run_options import RunOptions
from basicsr_plugins.training.settings import TrainSettings

__all__ = ["DCGuidedModel"]

#: Classes of a classifier for ``guidance: binary``.
CLEAN, DEGRADED = 0, 1


@dataclass
class DCGuidedSettings(TrainSettings):
    """Section ``train`` of DC-guided training."""

    target_class: Optional[int] = option(None, "class of the task that net_g is trained for")
    guidance: Literal["class", "binary"] = option(
        "class",
        "class: cross-entropy of the features of lq towards target_class (released code); binary: a two-class "
        "classifier, lq towards degraded (1) and gt towards clean (0) (as the text describes it, details ours)",
    )
    guidance_weight: float = option(
        1.0, "weight of the guidance; 0 is the baseline without it", source="DCPT config 884c00d", check=non_negative
    )
    classification_opt: dict[str, Any] = option(
        {"type": "CrossEntropyLoss"}, "classification loss", source="DCPT config 884c00d"
    )
    feature_layers: Optional[list[str]] = option(
        None, "modules of net_g to tap, finest feature first; ~ takes the network's preset"
    )


@provides("model")
class DCGuidedModel(DegradationClassification, RestorationModel):
    """Restoration towards a new task under a frozen degradation classifier (arXiv 2501.15510, DC-guided training).

    One forward pass of ``net_g`` on the degraded image gives the output and the features; the loss is the pixel loss
    plus the cross-entropy of the frozen classifier's logits towards the target class, differentiated through ``net_g``.

    .. code-block:: yaml

        model_type: DCGuidedModel
        network_g: {type: Restormer, preset: deraining}
        network_dc: {type: DegradationClassifier, num_classes: 5}
        path:
          pretrain_network_g: experiments/pretrained_models/deraining.pth
          pretrain_network_dc: experiments/dcpt_restormer/models/net_dc_latest.pth
        train:
          total_iter: 100000
          target_class: 4
          optim_g: {type: AdamW, lr: !!float 3e-4, weight_decay: !!float 1e-4, betas: [0.9, 0.999]}
          pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
    """

    Settings: ClassVar[type[TrainSettings]] = DCGuidedSettings
    network_names: ClassVar[tuple[str, ...]] = ("g", "dc")
    trains_on_labels: ClassVar[bool] = False

    def setup(self) -> None:
        """Freeze the classifier."""
        super().setup()
        self.net_dc.requires_grad_(False)

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield the pixel loss with the guidance; the binary variant classifies the clean image in a second phase."""
        settings = self.settings
        if settings.guidance_weight == 0:
            yield self.restoration_losses(self.restore(self.lq), self.gt)
            return
        self.net_dc.eval()
        binary = settings.guidance == "binary"
        output, features = self.tap.with_output(self.lq)
        losses = self.restoration_losses(output.float(), self.gt)
        yield {**losses, "l_dc": self._guidance(features, self.target) * (0.5 if binary else 1.0)}
        if binary:
            yield {"l_dc_clean": self._guidance(self.tap(self.gt), CLEAN) * 0.5}

    def _guidance(self, features: list[Tensor], target: int) -> Tensor:
        logits = self.net_dc(features)
        labels = torch.full((len(logits),), target, device=logits.device)
        return self.cri_cls(logits, labels) * self.settings.guidance_weight

    @property
    def target(self) -> int:
        """The class that the features of a degraded image are trained towards."""
        return DEGRADED if self.settings.guidance == "binary" else self.settings.target_class or 0

    def evaluate(self) -> dict[str, Any]:
        """Record whether the classifier predicts the target class for the validation image in ``self``."""
        if not self.is_train:
            return {}
        self.batch["degradation"] = torch.full((len(self.lq),), self.target, device=self.lq.device)
        return super().evaluate()

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Check that there is a trained classifier and that it has the target class."""
        super().check_recipe(run, networks)
        if run.train is None:
            return
        classes = run.network("dc")["num_classes"]
        if not run.path("pretrain_network_dc") and not run.path("resume_state"):
            raise OptionError(
                "path.pretrain_network_dc: this option is required: the classifier that guides, trained by DCPTModel."
            )
        if run.train.guidance == "binary":
            if classes != 2:
                raise OptionError(
                    f"network_dc.num_classes: guidance: binary needs a classifier of clean (0) and degraded (1), "
                    f"this one has {classes} classes."
                )
            if run.train.target_class is not None:
                raise OptionError(
                    "train.target_class: guidance: binary tells degraded from clean and has no target; remove one."
                )
            return
        target = run.train.target_class
        if target is None or not 0 <= target < classes:
            raise OptionError(
                f"train.target_class: the classifier's number of the task to learn, 0 to {classes - 1}, got {target}."
            )
