"""The kNN probe: how well do a network's inner features separate degradations, without any training (DCPT, Table 1)?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import DataError, DependencyError, OptionError
from basicsr_plugins.data.files import image_files
from basicsr_plugins.data.images import read_image, to_float
from basicsr_plugins.features import FeatureTap

__all__ = [
    "SEEDS",
    "ProbeResult",
    "LabelledImages",
    "initialise_randomly",
    "probe",
    "read_label_folders",
    "tap_features",
]

#: Seeds of the five splits in the published script.
SEEDS = (0, 223, 929, 1234, 10086)


@dataclass
class LabelledImages:
    """Centre crops and their classes.

    Attributes:
        images: ``(n, 3, h, w)`` float32 RGB in [0, 1].
        labels: ``(n,)``.
        names: One per class.
    """

    images: Tensor
    labels: np.ndarray
    names: list[str]


@dataclass
class ProbeResult:
    """Accuracies of one kind of feature over the splits.

    Attributes:
        name: What was classified ("random init: decoders.2").
        accuracies: One per split.
        confusion: Counts over all splits, row = true class.
        embedding: ``(n, 2)`` t-SNE coordinates, where asked for.
    """

    name: str
    accuracies: list[float]
    confusion: np.ndarray
    embedding: Optional[np.ndarray] = None
    details: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the line of the table."""
        values = np.array(self.accuracies)
        return {
            "features": self.name, "accuracy": float(values.mean()), "spread": float(values.std()),
            "lowest": float(values.min()), "highest": float(values.max()), **self.details,
        }  # fmt: skip


def read_label_folders(folders: Mapping[str, Any], crop: int, per_class: int) -> LabelledImages:
    """Read the first images of each folder, cropped around their centre.

    Args:
        folders: Class name to folder.
        crop: Side of the crop.
        per_class: Most images of a class.

    Raises:
        DataError: A folder is missing or empty, an image is smaller than the crop.
    """
    crops, labels = [], []
    for label, (name, folder) in enumerate(folders.items()):
        for path in image_files(Path(folder), f"--data {name}", False)[:per_class]:
            image = to_float(read_image(path))
            height, width = image.shape[:2]
            if min(height, width) < crop:
                raise DataError(f"{path}: {width} x {height} pixels, the crop needs {crop}; use a smaller --crop.")
            top, left = (height - crop) // 2, (width - crop) // 2
            patch = np.ascontiguousarray(image[top : top + crop, left : left + crop].transpose(2, 0, 1))
            crops.append(torch.from_numpy(patch))
            labels.append(label)
    counts = np.bincount(labels, minlength=len(folders))
    if len(folders) < 2 or counts.min() < 3:
        listed = ", ".join(f"{name} {count}" for name, count in zip(folders, counts))
        raise DataError(f"the probe needs two classes and three images of each, got {listed}.")
    return LabelledImages(torch.stack(crops), np.array(labels), list(folders))


@torch.no_grad()
def initialise_randomly(network: nn.Module, seed: int = 0) -> None:
    """Give convolutions and linear layers the published probe's random weights: uniform He with a = 2, biases 0.

    NAFNet's residual factors are parameters beside those layers and stay at their start, zero, as there.

    Args:
        network: Changed in place.
        seed: Of the draw; torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.kaiming_uniform_(module.weight, a=2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


@torch.no_grad()
def tap_features(
    network: nn.Module, layers: Sequence[str], images: Tensor, batch: int = 8, pool: str = "flatten",
    device: str = "cpu",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return ``{layer: (n, d)}`` of features, flattened as in the published probe, or averaged over the image.

    Args:
        network: Any network.
        layers: Module names, see ``FeatureTap``.
        images: ``(n, 3, h, w)``.
        batch: Images per forward pass.
        pool: ``flatten`` or ``mean``.
        device: Where the network runs.
    """
    network = network.to(device).eval()
    tap = FeatureTap(network, layers, where="--layers")
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for part in images.split(batch):
        for layer, feature in zip(layers, tap(part.to(device))):
            feature = feature.mean(dim=(-2, -1)) if pool == "mean" else feature.flatten(1)
            found[layer].append(feature.float().cpu())
    return {layer: torch.cat(parts).numpy() for layer, parts in found.items()}


def probe(
    name: str, features: np.ndarray, labels: np.ndarray, neighbours: int = 5, seeds: Iterable[int] = SEEDS,
    test_size: float = 1 / 3, stratified: bool = True, groups: Optional[np.ndarray] = None, tsne: int = 0,
    progress: Callable[..., Any] = iter,
) -> ProbeResult:  # fmt: skip
    """Classify features by their nearest neighbours, over several splits.

    Args:
        name: For the table.
        features: ``(n, d)``.
        labels: ``(n,)``.
        neighbours: k; 5 as published.
        seeds: One split each; the published ones by default.
        test_size: Share of the test images: 2:1 as published.
        stratified: Split each class alike, as the text has it (the published script does not).
        groups: ``(n,)`` the picture behind each image; all versions of a picture stay on one side of the split.
        tsne: Iterations of t-SNE on L2-normalised features (2000 as published); 0 for none.
        progress: Wraps the seeds.

    Raises:
        DependencyError: scikit-learn is missing.
        OptionError: Fewer training images than neighbours.
    """
    neighbors, manifold, selection = _sklearn()
    classes = int(labels.max()) + 1
    confusion = np.zeros((classes, classes), dtype=np.int64)
    accuracies = []
    for seed in progress(seeds):
        train, test = _split(selection, labels, test_size, stratified, groups, seed)
        if len(train) < neighbours:
            raise OptionError(f"--neighbours: {neighbours} of them among {len(train)} training images.")
        nearest = neighbors.KNeighborsClassifier(n_neighbors=neighbours).fit(features[train], labels[train])
        predicted = nearest.predict(features[test])
        np.add.at(confusion, (labels[test], predicted), 1)
        accuracies.append(float((predicted == labels[test]).mean()))
    embedding = None
    if tsne:
        unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        embedding = _embed(manifold, unit, tsne)
    return ProbeResult(name, accuracies, confusion, embedding)


def _split(
    selection: Any, labels: np.ndarray, test_size: float, stratified: bool, groups: Optional[np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    places = np.arange(len(labels))
    if groups is not None:
        splitter = selection.GroupShuffleSplit(n_splits=1, test_size=test_size, random_state=seed)
        return next(splitter.split(places, labels, groups))
    return selection.train_test_split(
        places, test_size=test_size, random_state=seed, stratify=labels if stratified else None
    )


def _embed(manifold: Any, features: np.ndarray, iterations: int) -> np.ndarray:
    arguments = inspect.signature(manifold.TSNE).parameters
    name = "max_iter" if "max_iter" in arguments else "n_iter"  # renamed in scikit-learn 1.5
    perplexity = min(30.0, (len(features) - 1) / 3)
    return manifold.TSNE(
        n_components=2, perplexity=perplexity, init="pca", random_state=0, **{name: max(250, iterations)}
    ).fit_transform(features)


def _sklearn() -> tuple[Any, Any, Any]:
    try:
        from sklearn import manifold, model_selection, neighbors
    except ImportError as error:
        raise DependencyError('the probe needs scikit-learn: pip install "basicsr-plugins[plots]".') from error
    return neighbors, manifold, model_selection
