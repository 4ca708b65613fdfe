"""`basicsr-plugins demo-data DIR`."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    text = "write colour photographs that other packages carry as a small train/test set"
    parser = commands.add_parser("demo-data", help=text, description=text)
    parser.add_argument("dir", help="folder to write to")
    parser.set_defaults(func=_run)


def _run(arguments: argparse.Namespace) -> None:
    from basicsr_plugins.data.demo_photographs import write_demo_data

    for part, files in write_demo_data(arguments.dir).items():
        print(f"{part}: {len(files)} images in {files[0].parent}")
