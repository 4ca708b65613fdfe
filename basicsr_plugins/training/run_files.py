"""The numbered files of a run: list them, and delete old ones."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["numbered_files", "prune"]


def numbered_files(folder: str | Path, prefix: str, suffix: str) -> dict[int, Path]:
    """Return ``{iteration: file}`` of the files ``<prefix><iteration><suffix>`` in a folder."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)" + re.escape(suffix) + r"$")
    folder = Path(folder)
    found = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        match = pattern.match(file.name)
        if match:
            found[int(match.group(1))] = file
    return found


def prune(folder: str | Path, prefix: str, suffix: str, keep: int) -> None:
    """Delete all but the ``keep`` newest numbered files."""
    files = numbered_files(folder, prefix, suffix)
    for iteration in sorted(files)[:-keep]:
        files[iteration].unlink()
