"""`basicsr-plugins init DIR`: copy the option files out of the package."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import basicsr_plugins
from basicsr_plugins.core.errors import PluginError

__all__ = ["add_parser", "option_folder"]


def option_folder() -> Path:
    """Return the folder of the shipped option files: inside the package, or beside it in a clone.

    Raises:
        PluginError: Neither exists (a broken installation).
    """
    package = Path(basicsr_plugins.__file__).parent
    for folder in (package / "option_files", package.parent / "options"):
        if folder.is_dir():
            return folder
    raise PluginError(f"the option files are neither in {package} nor beside it; install basicsr-plugins again.")


def add_parser(commands: Any) -> None:
    """Add the command."""
    text = "copy every option file into DIR/options; existing files are never overwritten"
    parser = commands.add_parser("init", help=text, description=text)
    parser.add_argument("dir", help="folder to write to")
    parser.set_defaults(func=_run)


def _run(arguments: argparse.Namespace) -> None:
    source, target = option_folder(), Path(arguments.dir) / "options"
    copied = kept = 0
    for file in sorted(source.rglob("*.yml")):
        place = target / file.relative_to(source)
        if place.exists():
            kept += 1
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
        copied += 1
    print(
        f"{copied} option files in {target}"
        + (f", {kept} that were there already are left as they are" if kept else "")
    )
