"""`basicsr-plugins study toy` and `study rain`: the experiments of the deraining-generalization papers."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command and its two studies."""
    text = "reproduce a study of the deraining-generalization papers"
    studies = commands.add_parser("study", help=text, description=text).add_subparsers(
        dest="study", metavar="STUDY", required=True
    )

    text = "function denoising: removal of unseen degradations against number and complexity of functions"
    toy = studies.add_parser("toy", help=text, description=text)
    toy.add_argument("--out", default="results/study_toy", help="folder of toy.csv and toy.png")
    toy.add_argument("--terms", type=int, nargs="+", default=[1, 3, 8, 32], help="sines in a function, K")
    toy.add_argument("--functions", type=int, nargs="+", default=[4, 64, 4096], help="functions in training, N")
    toy.add_argument("--seeds", type=int, default=1, help="seeds of every combination (default 1; the docs show 5)")
    toy.add_argument("--steps", type=int, help="optimisation steps of a run")
    toy.add_argument(
        "--train-on", nargs="+", default=["burst"], help="degradations to train on: burst (default, simple), wide"
    )
    toy.set_defaults(func=_toy)

    text = "run a sweep over backgrounds, rain ranges and seeds; finished runs are skipped, broken ones resumed"
    rain = studies.add_parser("rain", help=text, description=text)
    rain.add_argument("-opt", "--opt", required=True, help="sweep file (YAML)")
    rain.add_argument("--out", help="folder of the runs, sweep.csv and sweep.png (default: results/NAME)")
    rain.set_defaults(func=_rain)


def _toy(arguments: argparse.Namespace) -> None:
    from functools import partial
    from pathlib import Path

    from tqdm import tqdm

    from basicsr_plugins.core.errors import OptionError
    from basicsr_plugins.core.options import parse
    from basicsr_plugins.studies.figures import draw_toy, need_matplotlib
    from basicsr_plugins.studies.tables import as_text, write_csv
    from basicsr_plugins.studies.toy import UNSEEN, ToySettings, check_settings, differences, run_grid, summary

    need_matplotlib()
    if arguments.seeds < 1:
        raise OptionError(f"--seeds: must be at least 1, got {arguments.seeds}.")
    given = {} if arguments.steps is None else {"steps": arguments.steps}
    grid = {"terms": arguments.terms, "functions": arguments.functions, "train_on": arguments.train_on}
    for name, values in grid.items():
        for value in values:
            check_settings(parse(ToySettings, {**given, name: value}, "study toy"))

    rows = []
    for kind in arguments.train_on:
        bar = partial(tqdm, desc=f"study toy, trained on {kind}", unit="run")
        settings = parse(ToySettings, {**given, "train_on": kind}, "study toy")
        found = run_grid(arguments.terms, arguments.functions, range(arguments.seeds), settings, bar)
        rows += found
        print(as_text(summary(found)))
        for axis in ("terms", "functions"):
            low, high = min(grid[axis]), max(grid[axis])
            for test in UNSEEN if low < high else ():
                falls = differences(found, axis, low, high, [test])
                print(
                    f"removal of {test}, {axis} {low} -> {high}: falls by {falls.mean():+.3f} "
                    f"({falls.min():+.3f} to {falls.max():+.3f} over {len(falls)} seeds)"
                )
    out = Path(arguments.out)
    print(f"table: {write_csv(rows, out / 'toy.csv')}")
    print(f"figure: {draw_toy(rows, out / 'toy.png')}")


def _rain(arguments: argparse.Namespace) -> int:
    from basicsr_plugins.studies.sweep import run_sweep

    return run_sweep(arguments.opt, arguments.out)
