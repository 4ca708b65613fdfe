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
    toy.add_argument("--train-on", help="degradation seen in training: burst (default) or wide")
    toy.set_defaults(func=_toy)

    text = "run a sweep over backgrounds, rain ranges and seeds; finished runs are skipped, broken ones resumed"
    rain = studies.add_parser("rain", help=text, description=text)
    rain.add_argument("-opt", "--opt", required=True, help="sweep file (YAML)")
    rain.add_argument("--out", help="folder of the runs, sweep.csv and sweep.png (default: results/NAME)")
    rain.set_defaults(func=_rain)


def _toy(arguments: argparse.Namespace) -> None:
    from dataclasses import fields
    from functools import partial
    from pathlib import Path

    from tqdm import tqdm

    from basicsr_plugins.errors import OptionError
    from basicsr_plugins.options import parse
    from basicsr_plugins.studies.figures import draw_toy
    from basicsr_plugins.studies.tables import as_text, write_csv
    from basicsr_plugins.studies.toy import UNSEEN, ToySettings, differences, run_grid, summary

    if arguments.seeds < 1:
        raise OptionError(f"--seeds: must be at least 1, got {arguments.seeds}.")
    given = {key: value for key, value in vars(arguments).items() if value is not None}
    known = {field.name for field in fields(ToySettings)} - {"terms", "functions"}
    settings = parse(ToySettings, {key: value for key, value in given.items() if key in known}, "study toy")
    for terms in arguments.terms:
        parse(ToySettings, {"terms": terms}, "study toy")
    for functions in arguments.functions:
        parse(ToySettings, {"functions": functions}, "study toy")

    bar = partial(tqdm, desc="study toy", unit="run")
    rows = run_grid(arguments.terms, arguments.functions, range(arguments.seeds), settings, bar)
    out = Path(arguments.out)
    print(as_text(summary(rows)))
    for axis, values in (("terms", arguments.terms), ("functions", arguments.functions)):
        for kind in UNSEEN if len(values) > 1 else ():
            falls = differences(rows, axis, min(values), max(values), [kind])
            print(
                f"removal of {kind}, {axis} {min(values)} -> {max(values)}: falls by {falls.mean():+.3f} "
                f"({falls.min():+.3f} to {falls.max():+.3f} over {len(falls)} seeds)"
            )
    print(f"table: {write_csv(rows, out / 'toy.csv')}\nfigure: {draw_toy(rows, out / 'toy.png')}")


def _rain(arguments: argparse.Namespace) -> int:
    from basicsr_plugins.studies.sweep import run_sweep

    return run_sweep(arguments.opt, arguments.out)
