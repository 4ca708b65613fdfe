"""What every recipe with a degradation classifier ``net_dc`` shares: the tap, the labels, accuracy at validation."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn

from basicsr_plugins import registration
from basicsr_plugins.archs.feature_presets import preset_layers
from basicsr_plugins.errors import DataError, OptionError
from basicsr_plugins.features import FeatureTap
from basicsr_plugins.metrics.classification import accuracies, confusion_matrix, format_confusion
from basicsr_plugins.options import check_call

__all__ = ["DegradationClassification", "classifier_options"]


def classifier_options(options: dict[str, Any], tap: FeatureTap, channels: int = 3) -> dict[str, Any]:
    """Return the classifier's options with ``feature_dims`` and ``downsample`` read from a dry run, where left out.

    Args:
        options: ``network_dc`` of the option file.
        tap: The tap on ``net_g``.
        channels: Channels of the images.
    """
    shapes = tap.shapes(channels)
    sizes = {shape[1:] for shape in shapes}
    return {
        "feature_dims": [shape[0] for shape in shapes],
        **({"downsample": True} if len(sizes) == 1 and len(shapes) > 1 else {}),
        **options,
    }


class DegradationClassification:
    """Mix-in for a ``RestorationModel`` whose ``net_dc`` reads features of ``net_g``."""

    batch_keys: ClassVar[tuple[str, ...]] = ("degradation",)
    #: built once ``net_g`` is there, because their arguments follow from it
    completed_networks: ClassVar[tuple[str, ...]] = ("dc",)

    def network_options(self, name: str) -> dict[str, Any]:
        """Complete ``network_dc`` from what is tapped."""
        if name != "dc":
            return super().network_options(name)
        self.tap = self.make_tap(self.net_g, self.opt)
        return classifier_options(self.opt["network_dc"], self.tap)

    @staticmethod
    def make_tap(network: nn.Module, opt: dict[str, Any]) -> FeatureTap:
        """Return the tap that ``train.feature_layers`` or the network's preset asks for."""
        layers = (opt.get("train") or {}).get("feature_layers")
        return FeatureTap(network, layers or preset_layers(network), where="train.feature_layers")

    def setup_losses(self) -> None:
        """Add the classification loss."""
        super().setup_losses()
        self.cri_cls = self.make_loss(self.settings.classification_opt)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch, and check its labels while they are on the CPU (a GPU would only say that it stopped).

        Raises:
            DataError: A label without a class.
        """
        labels = data.get("degradation")
        if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            files = ", ".join(map(str, data.get("lq_path") or []))
            raise DataError(
                f"network_dc.num_classes: the classifier has {self.num_classes} classes (labels 0 to "
                f"{self.num_classes - 1}), the batch has {int(labels.min())} to {int(labels.max())}: {files}."
            )
        super().feed_data(data)

    @property
    def num_classes(self) -> int:
        """Number of degradations that the classifier knows."""
        return self.opt["network_dc"]["num_classes"]

    def class_names(self) -> list[str]:
        """Return the degradations' names where the training set says them, else their numbers."""
        names = getattr(self, "_class_names", None) or [str(index) for index in range(self.num_classes)]
        return names[: self.num_classes]

    @torch.no_grad()
    def judge(self) -> dict[str, Any]:
        """Remember the true and the predicted degradation of the image in ``self``."""
        if not hasattr(self, "degradation"):
            return {}
        network = self.evaluation_network("g")
        tap = self.tap if network is self.net_g else self.make_tap(network, self.opt)
        logits = self.evaluation_network("dc")(tap(self.lq))
        return {"degradation": int(self.degradation[0]), "prediction": int(logits.argmax(dim=1)[0])}

    def summarise(self, records: list[dict[str, Any]], dataset_name: str) -> tuple[dict[str, float], str]:
        """Return the top-1 accuracy, that of each class, and the confusion matrix for the log."""
        judged = [record for record in records if "prediction" in record]
        if not judged:
            return {}, ""
        confusion = confusion_matrix(
            [record["degradation"] for record in judged], [record["prediction"] for record in judged], self.num_classes
        )
        total, per_class = accuracies(confusion)
        names = self.class_names()
        metrics = {"accuracy": total}
        metrics.update({f"accuracy_{name}": value for name, value in zip(names, per_class) if not math.isnan(value)})
        self.confusion = confusion
        return metrics, format_confusion(confusion, names)

    @classmethod
    def check_recipe(cls, opt: dict[str, Any], networks: dict[str, nn.Module]) -> None:
        """Check the tapped modules, the classifier, and that every label has its class."""
        super().check_recipe(opt, networks)
        tap = cls.make_tap(networks["g"], opt)
        options = dict(opt["network_dc"])
        if "type" not in options:
            raise OptionError("network_dc.type: this option is required.")
        classifier = registration.lookup("arch", options.pop("type"), "network_dc.type")
        if "num_classes" not in options:
            raise OptionError("network_dc.num_classes: this option is required: the number of degradations.")
        completed = check_call(classifier, classifier_options(options, tap), "network_dc")
        try:
            classifier(**completed)
        except OptionError as error:
            raise OptionError(f"network_dc: {error}") from None
        for phase, dataset_options in (opt.get("datasets") or {}).items():
            dataset = registration.provided("dataset").get(dataset_options["type"])
            count = dataset.labels(dataset_options) if dataset is not None and hasattr(dataset, "labels") else None
            if count is not None and count > options["num_classes"]:
                raise OptionError(
                    f"network_dc.num_classes: the classifier has {options['num_classes']} classes, but "
                    f"datasets.{phase} returns labels up to {count - 1}; set num_classes: {count}."
                )
