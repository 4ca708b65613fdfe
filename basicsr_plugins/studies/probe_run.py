"""`basicsr-plugins probe` from its arguments to the table, the JSON file and the pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
from torch import nn

import basicsr_plugins
from basicsr_plugins import checkpoints
from basicsr_plugins.archs.feature_presets import preset_layers
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import check_call
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.core.safe_yaml import load_yaml
from basicsr_plugins.data.files import image_files, need_folder
from basicsr_plugins.studies.probe import (
    SEEDS,
    LabelledImages,
    ProbeResult,
    initialise_randomly,
    probe,
    read_label_folders,
    tap_features,
)
from basicsr_plugins.studies.probe_figures import draw_confusions, draw_embeddings
from basicsr_plugins.studies.tables import as_text, write_csv

__all__ = ["label_folders", "run"]


def run(arguments: argparse.Namespace) -> None:
    """Probe the random initialisation, every checkpoint and the pixels; write and print what was found."""
    for name, least in (("neighbours", 1), ("crop", 1), ("per_class", 3), ("tsne", 0)):
        if getattr(arguments, name) < least:
            raise OptionError(f"--{name.replace('_', '-')}: must be at least {least}, got {getattr(arguments, name)}.")
    folders = label_folders(arguments.data)
    network = _network(arguments.opt)
    images = read_label_folders(folders, arguments.crop, arguments.per_class)
    groups = _pictures(folders, arguments.per_class) if arguments.by_picture else None
    classify = partial(
        probe, labels=images.labels, neighbours=arguments.neighbours, seeds=arguments.seeds or SEEDS, groups=groups,
        tsne=arguments.tsne,
    )  # fmt: skip

    results: list[ProbeResult] = []
    if not arguments.no_random:
        initialise_randomly(network)
        results += _layers("random init", network, images, arguments, classify)
    for name, path in _named(arguments.weights, "--weights", lambda path: Path(path).stem).items():
        _load(network, path, arguments.param_key)
        results += _layers(name, network, images, arguments, classify)
    if not arguments.no_pixels:
        results.append(classify("raw pixels", images.images.flatten(1).numpy()))
    if not results:
        raise OptionError("--no-random, --no-pixels: nothing is left to probe; give --weights.")
    _write(results, images, arguments)


def label_folders(given: list[str]) -> dict[str, Path]:
    """Return class name to folder, from ``NAME=DIR`` arguments or from the sub-folders of one folder.

    Raises:
        OptionError: A name twice, or one folder that is not one of classes.
        DataError: A folder is missing.
    """
    if len(given) == 1 and "=" not in given[0]:
        root = need_folder(given[0], "--data")
        folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}
        if len(folders) < 2:
            raise OptionError(f"--data: {root} needs a sub-folder for each of at least two classes.")
        return folders
    named = _named(given, "--data", lambda path: Path(path).name)
    return {name: need_folder(path, f"--data {name}") for name, path in named.items()}


def _named(given: list[str], where: str, default: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in given:
        name, _, path = item.rpartition("=")
        name = name or default(path)
        if name in found:
            raise OptionError(f"{where}: {name!r} is named twice; write NAME=PATH.")
        found[name] = path
    return found


def _network(path: str) -> nn.Module:
    basicsr_plugins.register()
    options = dict(load_yaml(Path(path)).get("network_g") or {})
    if "type" not in options:
        raise OptionError(f"{path}: network_g.type: this option is required.")
    kind = lookup("arch", options.pop("type"), "network_g.type")
    return kind(**check_call(kind, options, "network_g"))


def _load(network: nn.Module, path: str, key: Optional[str]) -> None:
    weights = checkpoints.read_weights(path, key or "params_ema")
    checkpoints.load_state(network, weights, path)


def _layers(
    name: str, network: nn.Module, images: LabelledImages, arguments: argparse.Namespace, classify: Any
) -> list[ProbeResult]:
    layers = arguments.layers or preset_layers(network)[:1]
    features = tap_features(network, layers, images.images, pool=arguments.pool, device=arguments.device)
    return [classify(f"{name}: {layer}", values) for layer, values in features.items()]


def _pictures(folders: Mapping[str, Path], per_class: int) -> np.ndarray:
    stems = [path.stem for name in folders for path in image_files(folders[name], f"--data {name}")[:per_class]]
    return np.unique(stems, return_inverse=True)[1]


def _write(results: list[ProbeResult], images: LabelledImages, arguments: argparse.Namespace) -> None:
    out = Path(arguments.out)
    rows = [result.row() for result in results]
    print(as_text(rows))
    write_csv(rows, out / "probe.csv")
    content = {
        "classes": images.names, "images": np.bincount(images.labels).tolist(), "crop": arguments.crop,
        "neighbours": arguments.neighbours, "seeds": list(arguments.seeds or SEEDS), "pool": arguments.pool,
        "by_picture": arguments.by_picture,
        "results": [
            {"features": r.name, "accuracies": r.accuracies, "confusion": r.confusion.tolist()} for r in results
        ],
    }  # fmt: skip
    path = out / "probe.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"table: {path}\nconfusion: {draw_confusions(results, images.names, out / 'confusion.png')}")
    if arguments.tsne:
        print(f"t-SNE: {draw_embeddings(results, images.labels, images.names, out / 'tsne.png')}")
