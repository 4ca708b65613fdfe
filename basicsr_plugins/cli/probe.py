"""`basicsr-plugins probe`: how well do a network's features separate degradations, by nearest neighbours?"""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    text = "kNN probe of a network's inner features: one folder of images per degradation, five splits"
    parser = commands.add_parser("probe", help=text, description=text)
    parser.add_argument("-opt", "--opt", required=True, help="option file with the network_g to probe")
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="NAME=DIR",
        help="a class and its folder, at least two; or one folder with a sub-folder for each class",
    )  # fmt: skip
    parser.add_argument(
        "--weights", nargs="*", default=[], metavar="[NAME=]FILE", help="checkpoints to probe, each a line of the table"
    )
    parser.add_argument("--param-key", help="entry of the checkpoints (default: params_ema where there is one)")
    parser.add_argument("--layers", nargs="+", help="modules to tap (default: the finest of the network's preset)")
    parser.add_argument("--no-random", action="store_true", help="leave out the random initialisation")
    parser.add_argument("--no-pixels", action="store_true", help="leave out the raw pixels")
    parser.add_argument("--pool", choices=("flatten", "mean"), default="flatten", help="flatten as published")
    parser.add_argument("--neighbours", type=int, default=5, help="k (default 5, published)")
    parser.add_argument("--seeds", type=int, nargs="+", help="one split each (default: the five published ones)")
    parser.add_argument("--crop", type=int, default=128, help="side of the centre crop (default 128, published)")
    parser.add_argument("--per-class", type=int, default=100, help="images of a class (default 100, published)")
    parser.add_argument(
        "--by-picture", action="store_true",
        help="keep files of one name, whatever their class, on one side of the split",
    )  # fmt: skip
    parser.add_argument("--tsne", type=int, default=0, metavar="ITERATIONS", help="also draw t-SNE (published: 2000)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", default="results/probe", help="folder of probe.json, probe.csv and the pictures")
    parser.set_defaults(func=_run)


def _run(arguments: argparse.Namespace) -> None:
    from basicsr_plugins.studies.probe_run import run

    run(arguments)
