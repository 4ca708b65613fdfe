"""DCPT: pre-train a restoration network by classifying degradations and reconstructing clean images (2501.15510)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional, Union

import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import fraction, option, positive
from basicsr_plugins.core.registration import provides
from basicsr_plugins.models.parts.degradation_classification import DegradationClassification
from basicsr_plugins.models.parts.patch_mask import hide_patches
from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.training.run_options import RunOptions
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
        "gt", "input of the generation phase: gt as published, lq is the direct-training ablation"
    )
    mask_ratio: float = option(
        0.0, "share of masked patches, with both phases merged (MaskDCPT: 0.5); 0 is DCPT with its two phases",
        check=fraction,
    )  # fmt: skip
    mask_patch: int = option(16, "side of a masked patch, pixels", source="MaskDCPT, arXiv 2510.13282", check=positive)
    train_only: Optional[Literal["classifier"]] = option(
        None, "classifier: net_g is frozen, optim_g and pixel_opt are not used (the published DCModel)"
    )
    labels: Optional[list[Union[str, list[str]]]] = option(
        None,
        "what labels 0, 1, ... mean, a name or a list of names: multi-label classification, one output per name "
        "(BinaryCrossEntropyLoss), instead of one class per label",
    )


@provides("model")
class DCPTModel(DegradationClassification, RestorationModel):
    """Degradation classification pre-training.

    Two phases an iteration, each with its own backward pass; then both optimizers step once. The gradients are those of
    one joint backward pass, the two graphs never live together. Classification, which needs more memory, comes first,
    while there are no gradients yet. ``pixel_opt: ~``, with no other loss on images, leaves the generation phase out.

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
    restoration_is_optional: ClassVar[bool] = True

    def setup(self) -> None:
        """Freeze ``net_g`` where only the classifier is trained."""
        super().setup()
        self.only_classifier = self.is_train and self.settings.train_only == "classifier"
        if self.only_classifier:
            self.net_g.requires_grad_(False)

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield the classification loss, then the generation loss (one phase with masks or a frozen ``net_g``)."""
        self.need("lq", "gt", "degradation")
        settings = self.settings
        if self.only_classifier:
            self.net_g.eval()
            with torch.no_grad():
                features = self.tap(self.lq)
            yield {"l_cls": self.classification_loss(features)}
            return
        if settings.mask_ratio > 0:
            # MaskDCPT: the masked degraded image in, the whole clean image and the class out
            net_input = hide_patches(self.lq, settings.mask_ratio, settings.mask_patch)
            output, features = self.tap.with_output(net_input)
            losses = self.restoration_losses(output.float(), self.gt, net_input)
            yield {**losses, "l_cls": self.classification_loss(features)}
            return
        # classification: features of the decoder half on the degraded image, and the class of its degradation
        yield from self.classification_losses(self.tap(self.lq))
        if not self.compares_images:
            return
        # generation: the clean image is reconstructed from itself (in the ablation, from the degraded one)
        net_input = self.gt if settings.pixel_input == "gt" else self.lq
        yield self.restoration_losses(self.restore(net_input), self.gt, net_input)

    def setup_losses(self) -> None:
        """Build the losses; a frozen ``net_g`` needs no pixel loss."""
        if self.only_classifier:
            self.cri_cls = self.make_loss(self.settings.classification_opt)
        else:
            super().setup_losses()

    @classmethod
    def trained(cls, run: RunOptions) -> tuple[str, ...]:
        """Return what has an optimizer: not ``net_g`` where only the classifier is trained."""
        return ("dc",) if run.train.train_only == "classifier" else super().trained(run)

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Check options that exclude each other."""
        super().check_recipe(run, networks)
        if run.train is None:
            return
        if run.train.mask_ratio and run.train.train_only:
            raise OptionError(
                "train.mask_ratio: train_only: classifier restores no image, so there is nothing to mask."
            )
        if run.train.spn_opt is not None and run.train.train_only:
            raise OptionError("train.spn_opt: with train_only: classifier net_g is not trained, so it has no history.")
        if not (run.train.pixel_opt or run.train.perceptual_opt or run.train.extra_losses):
            for key, used in (
                ("spn_opt", run.train.spn_opt is not None),
                ("pixel_input", run.train.pixel_input == "lq"),
            ):
                if used:
                    raise OptionError(
                        f"train.{key}: without pixel_opt no image is restored; set pixel_opt or remove it."
                    )
