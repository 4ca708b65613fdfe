"""The rain study: one network trained for every number of backgrounds, rain range and seed (arXiv 2305.15134).

A sweep file says what varies; everything else is one BasicSR option file inside it. Each run is an ordinary training
run in a process of its own, with the option file kept beside it, so that it can be repeated by hand.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

import basicsr_plugins
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.launch.checking import check_options
from basicsr_plugins.studies.figures import draw_rain, need_matplotlib
from basicsr_plugins.studies.sweep_plan import Run, SweepOptions, list_file, plan, read_sweep
from basicsr_plugins.studies.tables import as_text, average, write_csv

__all__ = ["Run", "SweepOptions", "collect", "plan", "read_sweep", "run_sweep", "summary"]


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
        failed = [run for run in waiting if not _train(run, bar)]
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
    columns = ("e_r", "e_r_oracle", "removal_ratio", "e_b", "residual", "psnr", "ssim")
    return average(rows, ("category", "rain", "backgrounds", "test"), columns)


def _train(run: Run, bar: Any) -> bool:
    """Train one run in a process of its own, and return whether it left its results."""
    package = str(Path(basicsr_plugins.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    bar.set_postfix_str(run.name)
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    run.option_file.write_text(run.text(), encoding="utf-8")
    command = [sys.executable, "-m", "basicsr_plugins.cli.main", "train", "-opt", str(run.option_file), "--auto_resume"]
    with run.log.open("a", encoding="utf-8") as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
    bar.update(1)
    return done.returncode == 0 and run.results() is not None


def _refuse_other_options(runs: list[Run]) -> None:
    for run in runs:
        if run.option_file.is_file() and run.option_file.read_text(encoding="utf-8") != run.text():
            raise OptionError(
                f"{run.option_file} was made with other options than this sweep file has now. "
                "Use another --out, or remove the folder to run it anew."
            )


def _write_lists(sweep: SweepOptions, out: Path) -> None:
    for name, folders in sweep.categories.items():
        if folders.get("train_files"):
            out.mkdir(parents=True, exist_ok=True)
            list_file(out, name).write_text("\n".join(folders["train_files"]) + "\n", encoding="utf-8")


def _check(runs: list[Run]) -> None:
    """Check, before any run starts, the one with most backgrounds of every category and rain range."""
    basicsr_plugins.register()
    largest: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=lambda run: run.point["backgrounds"]):
        largest[run.point["category"], run.point["rain"]] = run
    for run in largest.values():
        check_options({**copy.deepcopy(run.options), "is_train": True, "dist": False, "rank": 0, "world_size": 1})
