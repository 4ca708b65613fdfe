"""ABAIR phase I: restore images whose regions are degraded differently, and segment them (arXiv 2411.18412)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

import numpy as np
import torch
from torch import Tensor, nn

from basicsr_plugins.archs.feature_presets import preset_layers
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.options import non_negative, option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.features import FeatureTap
from basicsr_plugins.metrics.classification import accuracies, confusion_matrix, format_confusion
from basicsr_plugins.metrics.segmentation import colour_map, mean_iou
from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.training.run_options import RunOptions
from basicsr_plugins.training.settings import TrainSettings

__all__ = ["ABAIRPretrainModel"]


@dataclass
class ABAIRPretrainSettings(TrainSettings):
    """Section ``train`` of phase I."""

    optim_s: Optional[dict[str, Any]] = option(None, "optimizer of the segmentation head net_s")
    segmentation_opt: Optional[dict[str, Any]] = option(
        {"type": "CrossEntropyLoss", "loss_weight": 0.1},
        "pixel-wise loss of the degradation map; ~ switches the head off (table 6a). The weight is ours",
    )
    segmentation_layer: Optional[str] = option(
        None, "module of net_g that the head reads; ~ takes the first of the network's feature_layers"
    )
    save_maps: int = option(8, "coloured maps saved at each validation: input, prediction, truth", check=non_negative)


@provides("model")
class ABAIRPretrainModel(RestorationModel):
    """Restoration and segmentation of synthetic degradations, in one forward pass.

    The rows of table 6a are options: ``cutmix`` of the data set on or off, ``segmentation_opt`` given or ``~``. The
    head is a network of its own (``net_s``): ``net_g_*.pth`` never holds any of it, and any registered network can be
    ``network_g``.

    .. code-block:: yaml

        model_type: ABAIRPretrainModel
        network_g: {type: ABAIRNet, preset: full}
        network_s: {type: SegmentationHead, num_classes: 5}
        train:
          total_iter: 300000
          optim_g: {type: AdamW, lr: !!float 2e-4}
          optim_s: {type: AdamW, lr: !!float 2e-4}
          pixel_opt: {type: L1Loss}
          segmentation_opt: {type: CrossEntropyLoss, loss_weight: 0.1}
    """

    Settings: ClassVar[type[TrainSettings]] = ABAIRPretrainSettings
    network_names: ClassVar[tuple[str, ...]] = ("g", "s")
    batch_keys: ClassVar[tuple[str, ...]] = ("degradation_map",)

    @classmethod
    def used(cls, run: RunOptions) -> tuple[str, ...]:
        """Return ``g``, and ``s`` where the segmentation head takes part: in a test only if its weights are given."""
        segments = run.path("pretrain_network_s") if run.train is None else run.train.segmentation_opt is not None
        return ("g", "s") if segments else ("g",)

    @property
    def segments(self) -> bool:
        """Whether the segmentation head takes part."""
        return "s" in self.networks

    @classmethod
    def network_options(cls, run: RunOptions, name: str, networks: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Complete ``network_s`` by ``in_channels``, read from a dry run of the feature that the head reads."""
        options = super().network_options(run, name, networks)
        if name != "s":
            return options
        return {"in_channels": cls.make_tap(networks["g"], run).shapes()[0][0], **options}

    @staticmethod
    def make_tap(network: nn.Module, run: RunOptions) -> FeatureTap:
        """Return the tap on the module that the head reads."""
        layer = run.train.segmentation_layer if run.train is not None else None
        return FeatureTap(network, [layer or preset_layers(network)[0]], where="train.segmentation_layer")

    def setup(self) -> None:
        """Tap the feature that the head reads."""
        super().setup()
        if self.segments:
            self.tap = self.make_tap(self.net_g, self.run)

    def setup_losses(self) -> None:
        """Add the segmentation loss."""
        super().setup_losses()
        self.cri_seg = self.make_loss(self.settings.segmentation_opt)

    def compile_networks(self, arguments: dict[str, Any]) -> None:
        """Compile the tapped pass of ``net_g`` as well."""
        super().compile_networks(arguments)
        if self.segments:
            self.tap.compile(**arguments)

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield L_R + lambda L_CE (figure 2)."""
        if not self.segments:
            yield from super().phases(current_iter)
            return
        if "degradation_map" not in self.batch:
            raise DataError(
                "datasets.train: the batch has no degradation_map, which the segmentation loss needs. Set "
                "return_map: true or cutmix: {...} in a DegradationDataset, or train.segmentation_opt: ~."
            )
        restored, [feature] = self.tap.with_output(self.lq)
        self.output = restored.float()
        losses = self.restoration_losses(self.output, self.gt)
        losses["l_seg"] = self.cri_seg(self.net_s(feature, self.lq.shape[-2:]), self.batch["degradation_map"])
        yield losses

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Compare the predicted map of the image in ``self`` with the true one, and save both as a picture."""
        if not self.segments or "degradation_map" not in self.batch:
            return {}
        network = self.evaluation_network("g")
        tap = self.make_tap(network, self.run)  # not self.tap, which may be compiled for the training's patches
        logits = self.evaluation_network("s")(tap(self.lq)[0], self.lq.shape[-2:])
        truth, prediction = self.batch["degradation_map"][0].cpu().numpy(), logits[0].argmax(dim=0).cpu().numpy()
        classes = logits.shape[1]
        if self.is_train and self.pictures.index < self.settings.save_maps:
            self._save_map(prediction, truth, classes)
        return {"pixels": confusion_matrix(truth.ravel(), prediction.ravel(), classes).tolist()}

    def _save_map(self, prediction: np.ndarray, truth: np.ndarray, classes: int) -> None:
        from basicsr.utils import tensor2img

        image = tensor2img([self.lq.detach().cpu()])
        maps = [colour_map(labels, classes)[..., ::-1] for labels in (prediction, truth)]
        self.pictures.save(np.concatenate([image, *maps], axis=1), "_map")

    def aggregate(self, records: list[dict[str, Any]], dataset_name: str) -> tuple[dict[str, float], str]:
        """Return pixel accuracy, that of each class, the mean intersection over union, and the confusion matrix."""
        counts = [np.array(record["pixels"]) for record in records if "pixels" in record]
        if not counts:
            return {}, ""
        confusion = np.sum(counts, axis=0)
        total, per_class = accuracies(confusion)
        metrics = {"pixel_accuracy": total, "mean_iou": mean_iou(confusion)}
        names = self.run.label_names(len(confusion))
        metrics.update({f"pixel_accuracy_{n}": v for n, v in zip(names, per_class) if not math.isnan(v)})
        return metrics, format_confusion(confusion, names)

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Check that every label has its class."""
        super().check_recipe(run, networks)
        if "s" not in networks:
            return
        options = run.network("s")
        for phase, count in run.labels():
            if count > options.get("num_classes", count):
                raise OptionError(
                    f"network_s.num_classes: the segmentation head has {options['num_classes']} classes, but "
                    f"datasets.{phase} returns labels up to {count - 1}; set num_classes: {count}."
                )
