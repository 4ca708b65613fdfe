"""The rain study: one network trained for every number of backgrounds, rain range and seed (arXiv 2305.15134).

A sweep file says what varies; everything else is one BasicSR option file inside it. Each run is an ordinary training
run in a process of its own, with the option file kept beside it, so that it can be repeated by hand.
"""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Union

import yaml

import basicsr_plugins
from basicsr_plugins.errors import OptionError
from basicsr_plugins.options import check_value, option, parse
from basicsr_plugins.safe_yaml import load_yaml

__all__ = ["Run", "SweepOptions", "collect", "plan", "read_sweep", "run_sweep", "summary"]

#: What a run leaves in its folder (see ``models/decoupled_judging.py``).
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
        datasets["train"]["meta_info_file"] = str(_list_file(out, category).resolve())
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


def run_sweep(path: str | Path, out: str | Path | None = None) -> int:
    """Run what is missing of a sweep, then write ``sweep.csv`` and ``sweep.png``.

    A run that has finished is skipped, one that was broken off goes on from its last checkpoint. A run that fails does
    not stop the others.

    Args:
        path: The sweep file.
        out: Folder; None takes ``results/<name>``.

    Returns:
        0, or 1 if a run failed.

    Raises:
        OptionError: The sweep file is wrong, or the folder holds runs with other options.
    """
    from tqdm import tqdm

    from basicsr_plugins.studies.figures import draw_rain, need_matplotlib
    from basicsr_plugins.studies.tables import as_text, write_csv

    need_matplotlib()
    sweep = read_sweep(path)
    out = Path(out) if out else Path("results") / sweep.name
    runs = plan(sweep, out)
    _refuse_other_options(runs)
    _write_lists(sweep, out)
    waiting = [run for run in runs if run.results() is None]
    if waiting:
        _check(waiting)
    with tqdm(total=len(runs), initial=len(runs) - len(waiting), desc=sweep.name, unit="run") as bar:
        failed = _train(waiting, lambda run: (bar.set_postfix_str(run.name), bar.update(0)), lambda: bar.update(1))
    rows = collect(runs)
    for run in failed:
        print(f"{run.name} failed: see {run.log}", file=sys.stderr)
    if rows:
        print(as_text(summary(rows)))
        print(f"table: {write_csv(rows, out / 'sweep.csv')}")
        print(f"figure: {draw_rain(rows, out / 'sweep.png')}")
    return 1 if failed else 0


def collect(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return one row for every finished run and test set."""
    rows = []
    for run in runs:
        for name, scores in (run.results() or {}).items():
            kind = "seen" if name == "seen" else "unseen"
            scores = {key: value for key, value in scores.items() if key != "iteration"}
            rows.append({**run.point, "test": name, "kind": kind, **scores})
    return rows


def summary(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows averaged over the seeds, with the columns that matter."""
    keys = ("category", "rain", "backgrounds", "test")
    columns = ("e_r", "e_r_oracle", "removal_ratio", "e_b", "residual", "psnr", "ssim")
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    means = []
    for group, members in groups.items():
        known = {name: [row[name] for row in members if row.get(name) is not None] for name in columns}
        values = {name: sum(found) / len(found) for name, found in known.items() if found}
        means.append({**dict(zip(keys, group)), "seeds": len(members), **values})
    return means


def _train(runs: list[Run], before: Callable[[Run], Any], after: Callable[[], Any]) -> list[Run]:
    """Train runs one after another and return those that failed."""
    package = str(Path(basicsr_plugins.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    failed = []
    for run in runs:
        before(run)
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        run.option_file.write_text(run.text(), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "basicsr_plugins.cli.main",
            "train",
            "-opt",
            str(run.option_file),
            "--auto_resume",
        ]
        with run.log.open("a", encoding="utf-8") as log:
            code = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
            ).returncode
        if code or run.results() is None:
            failed.append(run)
        after()
    return failed


def _refuse_other_options(runs: list[Run]) -> None:
    for run in runs:
        if run.option_file.is_file() and run.option_file.read_text(encoding="utf-8") != run.text():
            raise OptionError(
                f"{run.option_file} was made with other options than this sweep file has now. "
                "Use another --out, or remove the folder to run it anew."
            )


def _list_file(out: Path, category: str) -> Path:
    return out / f"{category}_train.txt"


def _write_lists(sweep: SweepOptions, out: Path) -> None:
    for name, folders in sweep.categories.items():
        if folders.get("train_files"):
            out.mkdir(parents=True, exist_ok=True)
            _list_file(out, name).write_text("\n".join(folders["train_files"]) + "\n", encoding="utf-8")


def _check(runs: list[Run]) -> None:
    """Check, before any run starts, the one with most backgrounds of every category and rain range."""
    from basicsr_plugins.checking import check_options

    basicsr_plugins.register()
    largest: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=lambda run: run.point["backgrounds"]):
        largest[run.point["category"], run.point["rain"]] = run
    for run in largest.values():
        check_options({**copy.deepcopy(run.options), "is_train": True, "dist": False, "rank": 0, "world_size": 1})


def _plain(value: Any) -> Any:
    """Turn ordered mappings and tuples into plain ones, copies of what YAML anchors share included."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
