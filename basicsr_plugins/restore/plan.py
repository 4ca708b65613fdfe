"""Which files are restored, and what their outputs are called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.core.unique_names import UniqueNames
from basicsr_plugins.data.files import IMAGE_SUFFIXES
from basicsr_plugins.restore.encode import WRITTEN

__all__ = ["Job", "plan"]

#: Looked at in folders: what data sets read, and what is refused with a reason rather than passed over.
SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".jpe", ".jfif", ".pnm")


@dataclass(frozen=True)
class Job:
    """One file to restore.

    Args:
        source: The photograph.
        target: The output.
    """

    source: Path
    target: Path


def plan(
    inputs: Sequence[Path], output: Optional[Path], recursive: bool = False
) -> tuple[list[Job], list[str], list[Path]]:
    """Return the jobs, the names that were passed over in folders, and the folders of the outputs.

    Args:
        inputs: Files and folders.
        output: A file (for one input file), or a folder; None puts ``_restored`` behind the input's name.
        recursive: Take sub-folders too, which are kept in the output.

    Raises:
        DataError: An input does not exist, there is no image, or an output would replace an input.
    """
    found: list[tuple[Path, Path]] = []  # the file, and its path in the output
    passed: list[str] = []
    for source in inputs:
        if source.is_dir():
            skipped = None if output is None else output.resolve()
            files, others = _files(source, recursive, skipped)
            passed += others
            if not files and len(inputs) == 1:
                raise DataError(_nothing(source, others, recursive))
            inner = Path(f"{source.resolve().name}_restored") if output is None else Path()
            found += [(file, inner / file.relative_to(source)) for file in files]
        elif source.exists():
            named = Path(f"{source.stem}_restored{source.suffix}") if output is None else Path(source.name)
            found.append((source, named))
        else:
            raise DataError(f"INPUT: there is neither a file nor a folder {source} (seen from {Path.cwd()}).")
    if output is not None and _is_file_name(output, inputs):
        jobs = [Job(found[0][0], output)]
    else:
        if output is not None and output.is_file():
            raise DataError(f"OUTPUT: {output} is a file; several pictures need a folder (or name it with -o).")
        taken: dict[Path, UniqueNames] = {}
        jobs = []
        for file, name in found:
            root = _root(file, inputs, output)
            jobs.append(Job(file, root / taken.setdefault(root, UniqueNames()).take(_written(name))))
    photographs = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in photographs:
            raise DataError(f"OUTPUT: {job.target} is one of the photographs, which are never replaced; name another.")
    return jobs, passed, sorted({job.target.parent for job in jobs})


def _root(file: Path, inputs: Iterable[Path], output: Optional[Path]) -> Path:
    """Return the folder that a relative output name is below; without OUTPUT, the one that the input stands in."""
    if output is not None:
        return output
    owner = next(each for each in inputs if each == file or each in file.parents)
    return owner.resolve().parent if owner.is_dir() else owner.parent


def _written(name: Path) -> str:
    """Return the name with an ending that is written: a GIF's 256 colours hold no restored picture."""
    known = name.suffix.lower() in WRITTEN or name.suffix.lower() not in (".gif", "")
    return (name if known else name.with_suffix(".png")).as_posix()


def _is_file_name(output: Path, inputs: Sequence[Path]) -> bool:
    return len(inputs) == 1 and inputs[0].is_file() and not output.is_dir() and output.suffix.lower() in WRITTEN


def _files(folder: Path, recursive: bool, skipped: Optional[Path]) -> tuple[list[Path], list[str]]:
    """Return images and the names of other files; hidden folders, a NAS's and the output's own are left out."""
    files, others = [], []
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(
            each for each in folders
            if recursive and not each.startswith((".", "@")) and (Path(top) / each).resolve() != skipped
        )  # fmt: skip
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                files.append(Path(top) / name)
            elif not name.startswith("."):
                others.append(name)
    return files, others


def _nothing(folder: Path, others: Sequence[str], recursive: bool) -> str:
    if others:
        what = f"It holds {', '.join(others[:3])}; images end in {', '.join(SUFFIXES)}."
    elif not recursive and any(each.is_dir() for each in folder.iterdir()):
        what = "It has sub-folders: add --recursive."
    else:
        what = "It is empty."
    return f"INPUT: there is no image in {folder}. {what}"
