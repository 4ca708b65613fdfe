"""What every recipe with a degradation classifier ``net_dc`` shares: the tap, the labels, accuracy at validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Optional

import numpy as np
import torch
from torch import Tensor, nn

from basicsr_plugins.archs.feature_presets import preset_layers
from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.features import FeatureTap
from basicsr_plugins.metrics.classification import accuracies, confusion_matrix, format_confusion
from basicsr_plugins.metrics.confusion_picture import confusion_picture
from basicsr_plugins.models.parts.primitive_labels import PrimitiveLabels
from basicsr_plugins.training.engine_base import EngineBase
from basicsr_plugins.training.in_parts import losses_in_parts
from basicsr_plugins.training.run_options import RunOptions

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


class DegradationClassification(EngineBase):
    """Mix-in for a ``RestorationModel`` whose ``net_dc`` reads features of ``net_g``."""

    batch_keys: ClassVar[tuple[str, ...]] = ("degradation",)

    @classmethod
    def network_options(cls, run: RunOptions, name: str, networks: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Complete ``network_dc`` from what is tapped."""
        options = super().network_options(run, name, networks)
        if name != "dc":
            return options
        if "num_classes" not in options:
            raise OptionError("network_dc.num_classes: this option is required: the number of degradations.")
        return classifier_options(options, cls.make_tap(networks["g"], run))

    @staticmethod
    def make_tap(network: nn.Module, run: RunOptions) -> FeatureTap:
        """Return the tap that ``train.feature_layers`` or the network's preset names."""
        layers = run.train.feature_layers if run.train is not None else None
        return FeatureTap(network, layers or preset_layers(network), where="train.feature_layers")

    #: The label table of multi-label classification, where ``train.labels`` is set.
    primitives: Optional[PrimitiveLabels] = None

    def setup(self) -> None:
        """Tap ``net_g``, and build the label table."""
        super().setup()
        self.tap = self.make_tap(self.net_g, self.run)
        primitives = primitives_of(self.run)
        self.primitives = primitives.to(self.device) if primitives else None

    def setup_losses(self) -> None:
        """Add the classification loss."""
        super().setup_losses()
        self.cri_cls = self.make_loss(self.settings.classification_opt)

    def compile_networks(self, arguments: dict[str, Any]) -> None:
        """Compile the tapped pass of ``net_g`` as well."""
        super().compile_networks(arguments)
        self.tap.compile(**arguments)

    #: Whether the batch's labels are the classifier's targets.
    trains_on_labels: ClassVar[bool] = True

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch, and check its labels while they are on the CPU (CUDA would name neither label nor file).

        Raises:
            DataError: A label without a class.
        """
        labels = data.get("degradation")
        if (
            self.trains_on_labels
            and labels is not None
            and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_labels
        ):
            files = ", ".join(map(str, data.get("lq_path") or []))
            raise DataError(
                f"network_dc.num_classes: the classifier has {self.num_labels} classes (labels 0 to "
                f"{self.num_labels - 1}), the batch has {int(labels.min())} to {int(labels.max())}: {files}."
            )
        super().feed_data(data)

    def classification_loss(self, features: list[Tensor], images: slice = slice(None)) -> Tensor:
        """Return the loss of ``net_dc`` on tapped features, for the degradations of the batch or of some of it."""
        labels = self.batch["degradation"][images]
        return self.cri_cls(self.net_dc(features), self.primitives.targets(labels) if self.primitives else labels)

    def classification_losses(self, features: list[Tensor]) -> Iterator[dict[str, Tensor]]:
        """Yield the same loss, in two halves where that changes nothing: then only half of ``net_dc``'s graph lives.

        That is so where the loss says that it is a mean over images (``mean_over_images``) and the classifier that it
        treats each image alone (``independent_images``); one with batch statistics takes the batch in one pass.
        """
        means = getattr(self.cri_cls, "mean_over_images", False)
        parts = 2 if means and getattr(self.net_dc, "independent_images", False) else 1
        for loss in losses_in_parts(features, self.classification_loss, parts):
            yield {"l_cls": loss}

    @property
    def num_labels(self) -> int:
        """Number of degradation labels, mixtures included."""
        return len(self.primitives) if self.primitives else self.opt["network_dc"]["num_classes"]

    def class_names(self) -> list[str]:
        """Return the names of the labels where an option gives them, else their numbers."""
        if self.primitives:
            return [self.primitives.name(label) for label in range(self.num_labels)]
        return self.run.label_names(self.num_labels)

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Record the true and the predicted degradation of the image in ``self``."""
        if "degradation" not in self.batch:
            return {}
        network = self.evaluation_network("g")
        tap = self.make_tap(network, self.run)  # not self.tap, which may be compiled for the training's patches
        logits = self.evaluation_network("dc")(tap(self.lq))
        predicted = self.primitives.likeliest(logits) if self.primitives else logits.argmax(dim=1)
        record: dict[str, Any] = {"degradation": int(self.batch["degradation"][0]), "prediction": int(predicted[0])}
        if self.primitives:
            right = (logits > 0) == self.primitives.targets(self.batch["degradation"]).bool()
            record["primitives"] = [bool(answer) for answer in right[0]]
        return record

    def aggregate(self, records: list[dict[str, Any]], dataset_name: str) -> tuple[dict[str, float], str]:
        """Return the top-1 accuracy, that of each class, and the confusion matrix for the log."""
        evaluated = [record for record in records if "prediction" in record]
        self.confusion = None
        if not evaluated:
            return {}, ""
        confusion = confusion_matrix(
            [record["degradation"] for record in evaluated],
            [record["prediction"] for record in evaluated],
            self.num_labels,
        )
        total, per_class = accuracies(confusion)
        names = self.class_names()
        metrics = {"accuracy": total}
        metrics.update({f"accuracy_{name}": value for name, value in zip(names, per_class) if not math.isnan(value)})
        if self.primitives:
            right = np.array([record["primitives"] for record in evaluated])
            metrics["exact_match"] = float(right.all(axis=1).mean())
            shares = zip(self.primitives.primitives, right.mean(axis=0))
            metrics.update({f"primitive_{name}": float(share) for name, share in shares})
        self.confusion = confusion
        return metrics, format_confusion(confusion, names)

    def report_pictures(self) -> dict[str, Any]:
        """Return the confusion matrix of the last validated data set as a picture."""
        confusion = getattr(self, "confusion", None)
        return {} if confusion is None else {"confusion": confusion_picture(confusion, self.class_names())}

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Check that every label has its class."""
        super().check_recipe(run, networks)
        classes, primitives = run.network("dc")["num_classes"], primitives_of(run)
        if primitives is not None:
            _check_primitives(primitives, run.train.classification_opt, classes)
        for phase, count in run.labels():
            if primitives is not None and count > len(primitives):
                raise OptionError(
                    f"train.labels: {len(primitives)} meanings, but datasets.{phase} returns labels up to {count - 1}."
                )
            if primitives is None and count > classes:
                raise OptionError(
                    f"network_dc.num_classes: the classifier has {classes} classes, but datasets.{phase} returns "
                    f"labels up to {count - 1}; set num_classes: {count}."
                )


def primitives_of(run: RunOptions) -> Optional[PrimitiveLabels]:
    """Return the label table of multi-label classification, or None without ``train.labels``."""
    labels = getattr(run.train, "labels", None)
    return PrimitiveLabels(labels) if labels else None


def _check_primitives(primitives: PrimitiveLabels, loss_options: dict[str, Any], num_classes: int) -> None:
    """Check that primitives, classifier and loss fit each other."""
    if len(primitives.primitives) != num_classes:
        raise OptionError(
            f"network_dc.num_classes: train.labels names {len(primitives.primitives)} primitives "
            f"({', '.join(primitives.primitives)}), the classifier has {num_classes} outputs."
        )
    loss = loss_options["type"]
    if not getattr(registration.lookup("loss", loss), "multi_label", False):
        raise OptionError(
            f"train.classification_opt: {loss} wants one class per image; with train.labels use "
            "{type: BinaryCrossEntropyLoss}."
        )
