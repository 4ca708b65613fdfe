"""ABAIR phase I: restore images whose regions are degraded differently, and say what is where (arXiv 2411.18412)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from os import path as osp
from typing import Any, ClassVar, Optional

import numpy as np
import torch
from torch import Tensor, nn

from basicsr_plugins.archs.feature_presets import preset_layers
from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.options import check_call, non_negative, option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.features import FeatureTap
from basicsr_plugins.metrics.classification import accuracies, confusion_matrix, format_confusion
from basicsr_plugins.metrics.segmentation import colour_map, mean_iou
from basicsr_plugins.models.restoration_model import RestorationModel
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
    #: built once ``net_g`` is there: the head's input follows from it
    completed_networks: ClassVar[tuple[str, ...]] = ("s",)
    batch_keys: ClassVar[tuple[str, ...]] = ("degradation_map",)

    def _add_network(self, name: str) -> None:
        if name == "s" and not self.segments:
            return
        super()._add_network(name)

    @property
    def segments(self) -> bool:
        """Whether the segmentation head takes part: in a test only where its weights are given."""
        if not self.is_train:
            return bool(self.opt["path"].get("pretrain_network_s"))
        return self.settings.segmentation_opt is not None

    def network_options(self, name: str) -> dict[str, Any]:
        """Complete ``network_s`` from the feature that it reads."""
        if name != "s":
            return super().network_options(name)
        self.tap = self.make_tap(self.net_g, self.opt)
        return head_options(self.opt["network_s"], self.tap)

    @staticmethod
    def make_tap(network: nn.Module, opt: dict[str, Any]) -> FeatureTap:
        """Return the tap on the module that the head reads."""
        layer = (opt.get("train") or {}).get("segmentation_layer") or preset_layers(network)[0]
        return FeatureTap(network, [layer], where="train.segmentation_layer")

    def setup_losses(self) -> None:
        """Add the segmentation loss."""
        super().setup_losses()
        self.cri_seg = self.make_loss(self.settings.segmentation_opt)

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield L_R + lambda L_CE (figure 2)."""
        if not self.segments:
            yield from super().phases(current_iter)
            return
        if not hasattr(self, "degradation_map"):
            raise DataError(
                "datasets.train: the batch has no degradation_map, which the segmentation loss needs. Set "
                "return_map: true or cutmix: {...} in a DegradationDataset, or train.segmentation_opt: ~."
            )
        restored, [feature] = self.tap.with_output(self.lq)
        self.output = restored.float()
        losses = self.restoration_losses(self.output, self.gt)
        losses["l_seg"] = self.cri_seg(self.net_s(feature, self.lq.shape[-2:]), self.degradation_map)
        yield losses

    def nondist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Validate, and remember under which name the maps are saved."""
        self.map_label, self.maps_saved = current_iter, 0
        super().nondist_validation(dataloader, current_iter, tb_logger, save_img)

    @torch.no_grad()
    def judge(self) -> dict[str, Any]:
        """Compare the predicted map of the image in ``self`` with the true one, and save both as a picture."""
        if not self.segments or not hasattr(self, "degradation_map"):
            return {}
        network = self.evaluation_network("g")
        tap = self.tap if network is self.net_g else self.make_tap(network, self.opt)
        logits = self.evaluation_network("s")(tap(self.lq)[0], self.lq.shape[-2:])
        truth, prediction = self.degradation_map[0].cpu().numpy(), logits[0].argmax(dim=0).cpu().numpy()
        classes = logits.shape[1]
        if self.is_train and self.maps_saved < self.settings.save_maps:
            self._save_map(prediction, truth, classes)
        return {"pixels": confusion_matrix(truth.ravel(), prediction.ravel(), classes).tolist()}

    def _save_map(self, prediction: np.ndarray, truth: np.ndarray, classes: int) -> None:
        from basicsr.utils import imwrite, tensor2img

        image = tensor2img([self.lq.detach().cpu()])
        maps = [colour_map(labels, classes)[..., ::-1] for labels in (prediction, truth)]
        name = osp.splitext(osp.basename(self.files[0]))[0] if self.files else "image"
        path = osp.join(self.opt["path"]["visualization"], name, f"{name}_{self.map_label}_map.png")
        imwrite(np.concatenate([image, *maps], axis=1), path)
        self.maps_saved += 1

    def summarise(self, records: list[dict[str, Any]], dataset_name: str) -> tuple[dict[str, float], str]:
        """Return pixel accuracy, that of each class, the mean intersection over union, and the confusion matrix."""
        counts = [np.array(record["pixels"]) for record in records if "pixels" in record]
        if not counts:
            return {}, ""
        confusion = np.sum(counts, axis=0)
        total, per_class = accuracies(confusion)
        metrics = {"pixel_accuracy": total, "mean_iou": mean_iou(confusion)}
        names = label_names(self.opt, len(confusion))
        metrics.update({f"pixel_accuracy_{n}": v for n, v in zip(names, per_class) if not math.isnan(v)})
        return metrics, format_confusion(confusion, names)

    @classmethod
    def check_recipe(cls, opt: dict[str, Any], networks: dict[str, nn.Module]) -> None:
        """Check the tapped module, the head, and that every label has its class."""
        super().check_recipe(opt, networks)
        if opt.get("is_train") and opt["train"].get("segmentation_opt", "given") is None:
            return
        tap = cls.make_tap(networks["g"], opt)
        options = dict(opt["network_s"])
        if "type" not in options:
            raise OptionError("network_s.type: this option is required.")
        head = registration.lookup("arch", options.pop("type"), "network_s.type")
        check_call(head, head_options(options, tap), "network_s")
        for phase, given in (opt.get("datasets") or {}).items():
            dataset = registration.provided("dataset").get(given["type"])
            count = dataset.labels(given) if dataset is not None and hasattr(dataset, "labels") else None
            if count is not None and count > options.get("num_classes", count):
                raise OptionError(
                    f"network_s.num_classes: the segmentation head has {options['num_classes']} classes, but "
                    f"datasets.{phase} returns labels up to {count - 1}; set num_classes: {count}."
                )


def head_options(options: dict[str, Any], tap: FeatureTap) -> dict[str, Any]:
    """Return the head's options with ``in_channels`` read from a dry run, where left out."""
    return {"in_channels": tap.shapes()[0][0], **options}


def label_names(opt: dict[str, Any], count: int) -> list[str]:
    """Return what the training (or first) set calls its labels, or their numbers where it does not say."""
    datasets = opt.get("datasets") or {}
    given = (datasets.get("train") or next(iter(datasets.values()), {})).get("degradations") or []
    names = [str(index) for index in range(count)]
    for position, item in enumerate(given):
        entry = item if isinstance(item, dict) else {"type": item}
        label = entry.get("label", position)
        if isinstance(label, int) and 0 <= label < count:
            names[label] = str(entry.get("name") or entry.get("type"))
    return names
