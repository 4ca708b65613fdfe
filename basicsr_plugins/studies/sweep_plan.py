"""What a sweep file says: its grid, and the complete option file of every run."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import check_value, option, parse
from basicsr_plugins.core.safe_yaml import load_yaml

__all__ = ["Run", "SweepOptions", "list_file", "plan", "read_sweep"]

#: What a run leaves in its folder (see ``models/parts/decoupled_scores.py``).
RESULTS_FILE = "study_results.json"
METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False},
    "ssim": {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": False},
}


def _some_positive(values: list[int]) -> str | None:
    return (
        None if values and min(values) > 0 and len(set(values)) == len(values) else "must be different numbers above 0"
    )


def _some(values: Any) -> str | None:
    return None if len(values) > 0 else "must not be empty"


@dataclass
class Category:
    """One image category of a sweep."""

    train: str = option(help="folder of the training backgrounds")
    val: str = option(help="folder of the test backgrounds")
    train_files: Optional[list[str]] = option(None, "files of the training folder to use; all if left out")


@dataclass
class SweepOptions:
    """A sweep file.

    .. code-block:: yaml

        name: rain_demo
        categories:
          photos: {train: datasets/demo/train, val: datasets/demo/val}
        backgrounds: [2, 8, 32]
        rain: {small: {preset: small}, medium: {preset: medium}}
        unseen: {large: {preset: large}}
        seeds: [0, 1, 2]
        options: {network_g: {...}, datasets: {train: {...}}, train: {...}}
    """

    name: str = option(help="name of the sweep")
    categories: dict[str, dict[str, Any]] = option(
        help="image categories by name: {train: folder, val: folder}", check=_some
    )
    backgrounds: list[int] = option(help="numbers N of background tiles", check=_some_positive)
    rain: dict[str, Union[dict[str, Any], list[Any]]] = option(help="rain ranges by name, options of Rain", check=_some)
    options: dict[str, Any] = option(help="option file that all runs share")
    unseen: dict[str, Union[dict[str, Any], list[Any]]] = option(
        {}, "rain that no run is trained on, by name; left out, each run is tested on the other ranges"
    )
    seeds: list[int] = option([0], "seeds of weights, subsets and draws", check=_some)


@dataclass(frozen=True)
class Run:
    """One training run of a sweep.

    Attributes:
        name: Unique in the sweep.
        point: Its place on the grid: category, backgrounds, rain, seed.
        tests: Names of its test sets.
        options: Its complete option file.
        folder: Where the run's files go.
    """

    name: str
    point: dict[str, Any]
    tests: tuple[str, ...]
    options: dict[str, Any]
    folder: Path

    @property
    def option_file(self) -> Path:
        """The run's option file."""
        return self.folder.with_suffix(".yml")

    @property
    def log(self) -> Path:
        """What the run's process writes."""
        return self.folder.with_suffix(".log")

    def text(self) -> str:
        """Return the option file's content."""
        return yaml.safe_dump(self.options, sort_keys=False)

    def results(self) -> dict[str, dict[str, float]] | None:
        """Return the scores of every test set after the last iteration, or None as long as there are none."""
        try:
            found = json.loads((self.folder / RESULTS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        last = self.options["train"]["total_iter"]
        done = all(((found.get(name) or {}).get("iteration") or 0) >= last for name in self.tests)
        return {name: found[name] for name in self.tests} if done else None


def read_sweep(path: str | Path) -> SweepOptions:
    """Read and check a sweep file.

    Raises:
        OptionError: Something in it is wrong.
    """
    sweep = parse(SweepOptions, _plain(load_yaml(path)), str(path))
    for name, folders in sweep.categories.items():
        parse(Category, folders, f"{path}.categories.{name}")
    if not sweep.unseen and len(sweep.rain) < 2:
        raise OptionError(f"{path}.unseen: needs rain that is not trained on, or a second range under 'rain'.")
    for section in ("datasets", "train", "network_g"):
        if not isinstance(sweep.options.get(section), Mapping):
            raise OptionError(f"{path}.options.{section}: this option is required.")
    if "train" not in sweep.options["datasets"]:
        raise OptionError(f"{path}.options.datasets.train: this option is required.")
    check_value(sweep.options["train"].get("total_iter"), int, f"{path}.options.train.total_iter")
    return sweep


def plan(sweep: SweepOptions, out: Path) -> list[Run]:
    """Return every run of a sweep: the same iterations for every N, nested subsets for every seed."""
    return [
        _run(sweep, out, category, backgrounds, rain, seed)
        for category in sweep.categories
        for rain in sweep.rain
        for backgrounds in sweep.backgrounds
        for seed in sweep.seeds
    ]


def _run(sweep: SweepOptions, out: Path, category: str, backgrounds: int, rain: str, seed: int) -> Run:
    images = parse(Category, sweep.categories[category], f"categories.{category}")
    name = f"{sweep.name}_{category}_n{backgrounds}_{rain}_seed{seed}"
    folder = out / "runs" / name
    options = copy.deepcopy(sweep.options)
    template = options.pop("datasets")
    train, total = template["train"], options["train"]["total_iter"]
    # one epoch lasts for the whole run, so that a small N neither starves the loader nor restarts its workers
    ratio = math.ceil(total * train.get("batch_size_per_gpu", 1) / backgrounds)
    datasets = {
        "train": {
            "name": "train", "type": "RainSynthesisDataset", "subset_seed": seed, "dataset_enlarge_ratio": ratio,
            **train, "dataroot_gt": images.train, "num_backgrounds": backgrounds,
            "rain": sweep.rain[rain],
        }
    }  # fmt: skip
    if images.train_files:
        datasets["train"]["meta_info_file"] = str(list_file(out, category).resolve())
    unseen = sweep.unseen or {other: value for other, value in sweep.rain.items() if other != rain}
    tests = {"seen": sweep.rain[rain], **{f"unseen_{other}": value for other, value in unseen.items()}}
    tile = {"tile_size": train["tile_size"]} if "tile_size" in train else {}
    for number, (test, range_) in enumerate(tests.items(), start=1):
        datasets[f"val_{number}"] = {
            "type": "RainSynthesisDataset", **tile, **template.get("val", {}), "name": test,
            "dataroot_gt": images.val, "rain": range_,
        }  # fmt: skip
    options = {
        "model_type": "GeneralizationStudyModel",
        "scale": 1,
        "num_gpu": "auto",
        **options,
        "name": name,
        "manual_seed": seed,
        "datasets": datasets,
        "path": {**options.get("path", {}), "experiments_root": str(folder.resolve())},
        # BasicSR validates after the last iteration in any case
        "val": {"val_freq": total + 1, "metrics": METRICS, **options.get("val", {})},
        "logger": {"print_freq": max(1, total // 10), "save_checkpoint_freq": total, **options.get("logger", {})},
    }
    point = {"category": category, "backgrounds": backgrounds, "rain": rain, "seed": seed}
    return Run(name, point, tuple(tests), _plain(options), folder)


def list_file(out: Path, category: str) -> Path:
    """Return where the chosen training files of a category are listed."""
    return out / f"{category}_train.txt"


def _plain(value: Any) -> Any:
    """Turn ordered mappings and tuples into plain ones, copies of what YAML anchors share included."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
