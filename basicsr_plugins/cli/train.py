"""`basicsr-plugins train -opt FILE` and `basicsr-plugins test -opt FILE`."""

from __future__ import annotations

import argparse
import io
import sys
from functools import partial
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add ``train`` and ``test``."""
    for name, is_train, text in (
        ("train", True, "train with an option file; experiments go to the current folder"),
        ("test", False, "test with an option file; results go to the current folder"),
    ):
        parser = commands.add_parser(name, help=text, description=text)
        parser.add_argument("-opt", "--opt", required=True, help="option file (YAML)")
        parser.add_argument(
            "--launcher", choices=("none", "pytorch", "slurm"), help="default: pytorch under torchrun, else none"
        )
        parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
        parser.add_argument(
            "--set", action="append", nargs="+", default=[], metavar="KEY=VALUE",
            help="override options by dotted keys, e.g. --set train.ema_decay=0.999 datasets.train.gt_size=64",
        )  # fmt: skip
        parser.add_argument("--safe", action="store_true", help="refuse `imports` and types like package.module:Class")
        parser.set_defaults(func=partial(_run, is_train=is_train), auto_resume=False, debug=False)
        if is_train:
            parser.add_argument("--auto_resume", action="store_true", help="go on from the newest complete checkpoint")
            parser.add_argument("--debug", action="store_true", help="stock's debug mode: log, save and validate often")


def _run(arguments: argparse.Namespace, is_train: bool) -> None:
    from basicsr_plugins.launch.run import run  # torch, BasicSR

    arguments.set = [text for group in arguments.set for text in group]
    if isinstance(sys.stdout, io.TextIOWrapper):  # not in a notebook
        sys.stdout.reconfigure(line_buffering=True)
    run(arguments, is_train)
