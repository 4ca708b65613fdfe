"""ABAIR phase III: an estimator weights the adapters for each image (arXiv 2411.18412)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Optional, Union, cast

import numpy as np
import torch
from torch import Tensor, nn

from basicsr_plugins import checkpoints, stock
from basicsr_plugins.adapters.folder import AdapterFolder, find_adapters
from basicsr_plugins.adapters.modes import check_classes, check_mode, check_names, keep_clean
from basicsr_plugins.adapters.network import BlendedNetwork
from basicsr_plugins.adapters.rule import BlendRule
from basicsr_plugins.archs.degradation_estimator_arch import stored_classes
from basicsr_plugins.core.checked import settings_of
from basicsr_plugins.core.errors import CheckpointError, DataError, OptionError
from basicsr_plugins.core.options import option, positive
from basicsr_plugins.core.registration import provides
from basicsr_plugins.metrics.classification import accuracies, confusion_matrix, format_confusion
from basicsr_plugins.models.parts.frozen_base import FrozenBase
from basicsr_plugins.models.parts.mixture_labels import MixtureLabels
from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.training.inference import Restorer, own_multiple
from basicsr_plugins.training.run_options import RunOptions
from basicsr_plugins.training.settings import TrainSettings

__all__ = ["AdapterBlendModel"]


@dataclass
class BlendedAdapters:
    """The adapters of section ``blend``."""

    adapters: Union[str, dict[str, str]] = option(help="folder of adapter folders, or a mapping name: folder")
    add: dict[str, str] = option(
        {}, "adapters added later: the estimator is trained again and starts with its rows for the others"
    )


@dataclass
class BlendOptions(BlendRule, BlendedAdapters):
    """Section ``blend``."""

    mode: str = option(
        "soft",
        "soft, one_hot, oracle, sum, average, none, or an adapter's name: how the adapters are used in validation",
    )
    spatial: Optional[int] = option(
        None, "weights per tile of this many pixels instead of per image (beyond the paper)", check=positive
    )
    labels: Optional[list[Union[str, list[str]]]] = option(
        None, "what the data sets' labels 0, 1, ... mean: a name, or a list of names for a mixture; ~ is the adapters"
    )


@dataclass
class AdapterBlendSettings(TrainSettings):
    """Section ``train`` of phase III."""

    optim_e: Optional[dict[str, Any]] = option(None, "optimizer of the estimator net_e")
    estimator_opt: Optional[dict[str, Any]] = option(
        {"type": "CrossEntropyLoss"}, "classification loss of the estimator; ~ trains it by the restoration loss alone"
    )


@provides("model")
class AdapterBlendModel(FrozenBase, RestorationModel):
    """Train the estimator that weights the adapters; base and adapters are frozen.

    Its labels are soft where an image holds several degradations: a mixture in ``blend.labels``, or the shares of the
    pixels in ``degradation_map`` (CutMix). With a ``pixel_opt`` the restoration loss through the frozen blend trains it
    as well (beyond the paper).

    .. code-block:: yaml

        model_type: AdapterBlendModel
        network_g: {type: ABAIRNet, preset: full}
        network_e: {type: DegradationEstimator}
        path: {pretrain_network_g: experiments/abair_pretrain/models/net_g_latest.pth}
        blend:
          adapters: {rain: experiments/abair_adapter_rain/models/adapter_latest, haze: ...}
          mode: soft
        train:
          total_iter: 20000
          optim_e: {type: AdamW, lr: !!float 2e-4}
    """

    Settings: ClassVar[type[TrainSettings]] = AdapterBlendSettings
    sections: ClassVar[Mapping[str, type]] = {"blend": BlendOptions}
    network_names: ClassVar[tuple[str, ...]] = ("g", "e")
    trained_networks: ClassVar[tuple[str, ...]] = ("e",)
    takes_spn: ClassVar[bool] = False
    batch_keys: ClassVar[tuple[str, ...]] = ("degradation", "degradation_map")

    def __init__(self, opt: dict[str, Any]) -> None:
        self.blend_options = settings_of(opt.get("blend"), BlendOptions, "blend")
        self.folders = gather(self.blend_options)
        self.recall_base(opt, self.folders.values())
        super().__init__(opt)

    def _add_network(self, name: str) -> None:
        super()._add_network(name)
        if name == "g":
            # frozen: nothing to train, to average or to save
            blended = BlendedNetwork(self.networks.pop("g"), self.folders, where=self.base_source["path"])
            self.net_g = blended.to(self.device).eval()
            stock.logger().info(f"Blending {', '.join(blended.names)} over {len(blended.layers())} layers.")

    @classmethod
    def network_options(cls, run: RunOptions, name: str, networks: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Complete ``network_e`` with the adapters' names."""
        options = super().network_options(run, name, networks)
        return options if name != "e" else {"classes": list(gather(run.sections["blend"])), **options}

    def load_pretrained(self, name: str, network: nn.Module, key: Optional[str] = None) -> None:
        """Load the estimator by class name, so that its checkpoint may have fewer classes or another order."""
        paths = self.opt["path"]
        path = paths.get(f"pretrain_network_{name}")
        if name != "e" or path is None or not hasattr(network, "load_by_name"):
            super().load_pretrained(name, network, key)
            return
        weights = checkpoints.read_weights(path, key or paths.get("param_key_e", "params"))
        cast(Any, network).load_by_name(weights, path, added=list(self.blend_options.add))
        stock.logger().info(f"Loading net_e from {path}: it knows {', '.join(stored_classes(weights, path))}.")

    def setup(self) -> None:
        """Build the label table."""
        self.classes = list(getattr(self.net_e, "classes", self.net_g.names))
        self.labels = MixtureLabels(self.blend_options.labels or self.classes, self.classes).to(self.device)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch, and check its labels while they are on the CPU.

        Raises:
            DataError: A label that ``blend.labels`` does not name.
        """
        if self.is_train or self.blend_options.mode == "oracle":
            for key in self.batch_keys:
                if key in data:
                    self.labels.check(data[key])
        super().feed_data(data)

    def setup_losses(self) -> None:
        """Build the estimator's loss; the restoration losses are optional here."""
        settings = self.settings
        self.cri_est = self.make_loss(settings.estimator_opt)
        if settings.pixel_opt or settings.perceptual_opt or settings.extra_losses:
            super().setup_losses()
            return
        self.cri_pix, self.cri_perceptual, self.extra_losses = None, None, {}
        if self.cri_est is None:
            raise OptionError("train: no loss is set; give estimator_opt, pixel_opt or both.")

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield the classification loss and, with a loss on images, the restoration loss through the frozen blend."""
        spatial = self.blend_options.spatial
        logits = self.net_e(self.lq)
        losses: dict[str, Tensor] = {}
        if self.cri_est is not None:
            losses["l_est"] = self.cri_est(logits, self._shares())
            if spatial and "degradation_map" in self.batch:
                maps = self.net_e.maps(self.lq, spatial)
                losses["l_est_map"] = self.cri_est(
                    maps, self.labels.map_shares(self.batch["degradation_map"], maps.shape[-2:])
                )
        if self.compares_images:
            answers = self.net_e.maps(self.lq, spatial) if spatial else logits
            rule = BlendRule(keep_clean=self.blend_options.keep_clean)  # top_k and threshold give no gradient
            weights, kept = rule.blend("soft", self.net_g.names, answers.float().softmax(dim=1), self.classes)
            self.output = keep_clean(self.net_g(self.lq, weights).float(), self.lq, kept)
            losses.update(self.restoration_losses(self.output, self.gt))
        yield losses

    def _shares(self) -> Tensor:
        if "degradation_map" in self.batch:
            return self.labels.map_shares(self.batch["degradation_map"], (1, 1)).flatten(1)
        if "degradation" not in self.batch:
            raise DataError("the batch has no degradation labels, which the estimator is trained with.")
        return self.labels.shares(self.batch["degradation"])

    def evaluation_network(self, name: str = "g") -> Any:
        """Return the blended network, or the estimator (averaged, where there is an average)."""
        return self.net_g if name == "g" else super().evaluation_network(name)

    @torch.no_grad()
    def weigh(self, image: Tensor) -> tuple[Optional[Tensor], Optional[Tensor]]:
        """Return the weights of the adapters for images (n, c, h, w), and how much of each stays as it is (keep_clean).

        Both in the mode of the options; None for the base alone, and where everything is restored.
        """
        options = self.blend_options
        probabilities = None
        if options.mode in ("soft", "one_hot"):
            estimator: Any = self.evaluation_network("e")
            logits = estimator.maps(image, options.spatial) if options.spatial else estimator(image)
            probabilities = logits.float().softmax(dim=1)
        labels = self._shares() if options.mode == "oracle" else None
        weights, kept = options.blend(options.mode, self.net_g.names, probabilities, self.classes, labels)
        return weights if weights is None else weights.to(image.device), kept

    @torch.no_grad()
    def test(self) -> None:
        """Estimate the weights once for the whole image (per view where they are spatial), then restore it."""
        settings, spatial = self.val_settings, self.blend_options.spatial
        answer = self.weigh(self.lq)
        self.weights = answer[0]

        def network(image: Tensor) -> Tensor:
            weights, kept = self.weigh(image) if spatial else answer
            return keep_clean(self.net_g(image, weights), image, kept)

        multiple = settings.pad_multiple or own_multiple(self.net_g.net)
        restorer = Restorer(network, self.scale, multiple, settings.tile, settings.tile_overlap, settings.self_ensemble)
        self.output = restorer(self.lq)

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Record the true degradation, the predicted one, and the adapters' weights."""
        if "degradation" not in self.batch:
            return {}
        record: dict[str, Any] = {"degradation": int(self.batch["degradation"][0])}
        record["prediction"] = int(self.evaluation_network("e")(self.lq).argmax(dim=1)[0])
        if self.weights is not None:
            means = self.weights.flatten(2).mean(dim=2) if self.weights.dim() == 4 else self.weights
            record["weights"] = means[0].tolist()
        return record

    def aggregate(self, records: list[dict[str, Any]], dataset_name: str) -> tuple[dict[str, float], str]:
        """Return the estimator's accuracy (mixtures left out), the confusion matrix, and the mean weights by label."""
        evaluated = [r for r in records if "prediction" in r and r["degradation"] in self.labels.single]
        lines, metrics = [], {}
        if evaluated:
            truth = [self.labels.single[record["degradation"]] for record in evaluated]
            confusion = confusion_matrix(truth, [record["prediction"] for record in evaluated], len(self.classes))
            metrics["accuracy"], _ = accuracies(confusion)
            lines.append(format_confusion(confusion, self.classes))
        by_label: dict[int, list[list[float]]] = {}
        for record in records:
            if "weights" in record:
                by_label.setdefault(record["degradation"], []).append(record["weights"])
        for label, weights in sorted(by_label.items()):
            means = ", ".join(f"{name} {w:.2f}" for name, w in zip(self.net_g.names, np.mean(weights, axis=0)))
            lines.append(f"\t mean weights, {self.labels.name(label)}: {means}")
        return metrics, "\n".join(lines)

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Check adapters, base, estimator and labels against each other."""
        super().check_recipe(run, networks)
        options: BlendOptions = run.sections["blend"]
        folders = gather(options)
        check_mode(options.mode, list(folders), "blend.mode")
        _refuse_ignored(options)
        cls.check_base(run.opt, folders.values())
        classes = cls.network_options(run, "e", networks)["classes"]
        try:
            check_classes(classes, list(folders))
        except OptionError as error:
            raise OptionError(f"network_e.classes: {error}") from None
        labels = MixtureLabels(options.labels or classes, classes)
        for phase, count in run.labels():
            if count > len(labels):
                raise OptionError(
                    f"datasets.{phase} returns labels up to {count - 1}, but blend.labels names {len(labels)}: "
                    f"{', '.join(map(labels.name, range(len(labels))))}. Name every label; a label needs its adapter "
                    f"(there are {', '.join(folders)})."
                )
        path = run.path("pretrain_network_e")
        if not path and not run.is_train and options.mode in ("soft", "one_hot"):
            raise OptionError(
                f"path.pretrain_network_e: this option is required in a test with blend.mode {options.mode}: the "
                "estimator that weights the adapters (net_e_*.pth of AdapterBlendModel)."
            )
        if path:
            cls._check_estimator(path, run.path("param_key_e", "params"), classes, options.add)

    @staticmethod
    def _check_estimator(path: str, key: str, classes: list[str], added: dict[str, str]) -> None:
        theirs = stored_classes(checkpoints.read_weights(path, key), path)
        if set(theirs) - set(classes) or set(classes) - set(theirs) - set(added):
            raise CheckpointError(
                f"path.pretrain_network_e: {path} was trained for {', '.join(theirs)}; the adapters here are "
                f"{', '.join(classes)}. Name the same adapters, or put new ones under blend.add and retrain it."
            )


def gather(options: BlendOptions) -> dict[str, AdapterFolder]:
    """Return every adapter of a ``blend`` section by name, the added ones last.

    Raises:
        OptionError: A name occurs twice or means a mode.
        CheckpointError: A folder holds no adapter.
    """
    try:
        folders, added = find_adapters(options.adapters), find_adapters(options.add)
        check_names([*folders, *added])
    except OptionError as error:
        raise OptionError(f"blend: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"blend.adapters: {error}") from None
    return {**folders, **added}


def _refuse_ignored(options: BlendOptions) -> None:
    """Refuse what the mode does not look at: an option that does nothing would be taken for one that does."""
    for key, given, modes in (
        ("top_k", options.top_k is not None, ("soft",)),
        ("threshold", options.threshold > 0, ("soft", "one_hot")),
        ("spatial", options.spatial is not None, ("soft", "one_hot", "oracle")),
    ):
        if given and options.mode not in modes:
            raise OptionError(
                f"blend.{key}: blend.mode {options.mode} does not use it, only {', '.join(modes)}. Remove one of them."
            )
