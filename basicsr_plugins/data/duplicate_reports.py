"""What is done with duplicates: a report, a list of the files to keep, or a folder that they are moved to."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

from basicsr_plugins.core.atomic import atomic_path, writing_to
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.unique_names import UniqueNames
from basicsr_plugins.data.duplicates import Search
from basicsr_plugins.data.files import first_few
from basicsr_plugins.data.fingerprints import Fingerprint
from basicsr_plugins.data.lists import find_in_line
from basicsr_plugins.data.manifest_file import write_manifest
from basicsr_plugins.data.output_folder import MANIFEST, clear_the_way

__all__ = ["COMMAND", "check_outputs", "move_duplicates", "write_list", "write_report"]

COMMAND = "data dedup"
_COLUMNS = ("group", "role", "path", "relation", "distance", "height", "width", "bytes", "sha256")


def check_outputs(report: Optional[Path], listed: Optional[Path], overwrite: bool) -> None:
    """Refuse outputs before hours of reading.

    Raises:
        OptionError: A report that is neither JSON nor CSV.
        DataError: A file of that name is there.
    """
    if report is not None and report.suffix.lower() not in (".json", ".csv"):
        raise OptionError(f"--report: end its name in .json or .csv, got {report}.")
    for where, path in (("--report", report), ("--list", listed)):
        if path is None:
            continue
        if path.is_dir():
            raise DataError(f"{where}: {path} is a folder, a file is to be written.")
        if os.path.lexists(path) and not overwrite:
            raise DataError(f"{where}: {path} is there already. Add --overwrite to replace it.")


def write_report(path: Path, search: Search, settings: dict[str, Any]) -> None:
    """Write every group, as JSON with a hash of its content or as CSV, whole or not at all.

    Args:
        path: Ends in .json or .csv.
        search: What was found.
        settings: How it was searched, for the JSON file.

    Raises:
        CheckpointError: It cannot be written.
    """
    role = "test" if settings.get("against") else "keep"
    rows = []
    for number, group in enumerate(search.groups, 1):
        rows.append(_row(number, role, group.keep, "", None))
        for item in group.duplicates:
            rows.append(_row(number, "duplicate", item.file, "exact" if item.exact else "near", item.distance))
    if path.suffix.lower() == ".json":
        write_manifest(path, {"command": COMMAND, **settings, "files": rows, "failed": search.failed})
        return
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _COLUMNS)
        table.writeheader()
        table.writerows(rows)


def _row(number: int, role: str, file: Fingerprint, relation: str, distance: Optional[int]) -> dict[str, Any]:
    values = (number, role, str(file.path), relation, distance, *file.size, file.bytes, file.sha256)
    return dict(zip(_COLUMNS, values))


def write_list(path: Path, files: Sequence[Fingerprint], folders: Sequence[Path]) -> None:
    """Write a list of files as ``meta_info_file`` takes it: ``name.png (h,w,3)``, relative to the one folder.

    Args:
        path: Of the list.
        files: The ones to keep.
        folders: That they are from; of several, whole paths are written.

    Raises:
        DataError: A name that no list can hold.
        CheckpointError: It cannot be written.
    """
    root = folders[0] if len(folders) == 1 else None
    lines, lost = [], []
    for file in files:
        name = Path(os.path.abspath(file.path)) if root is None else file.path.relative_to(root)
        # a line that starts with '#' is a comment, and one in quotes loses them
        plain = name.is_absolute() or name.as_posix()[0] not in "#\"'"
        line = f"{'' if plain else './'}{name.as_posix()} ({file.size[0]},{file.size[1]},3)"
        found = None if line.splitlines() != [line] else find_in_line(root or Path("/"), line)
        if found is None or not found.samefile(file.path):
            lost.append(repr(str(file.path)))
        lines.append(line)
    if lost:
        raise DataError(f"--list: {len(lost)} name(s) cannot stand in a list, rename them: {first_few(lost)}.")
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def move_duplicates(
    target: Path,
    search: Search,
    folders: Sequence[Path],
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
) -> int:
    """Move the duplicates to a folder and return their number; its manifest, written first, says where each was.

    Args:
        target: The folder, new or without files of these names. A manifest of an earlier move gets a number.
        search: What was found.
        folders: That the files are from, whose sub-folders are kept.
        progress: Wraps the iterator over the files, given their number.

    Raises:
        DataError: Files in the way.
        CheckpointError: The folder cannot be written.
    """
    gone = [item for group in search.groups for item in group.duplicates]
    if not gone:
        return 0
    there = os.listdir(target) if target.is_dir() else []
    taken = UniqueNames(there)
    manifest = taken.take(MANIFEST)
    moves = []
    for item in gone:
        root = next(folder for folder in folders if folder in item.file.path.parents)
        name = taken.take(item.file.path.relative_to(root).as_posix())
        moves.append((item.file, name))
    clear_the_way(folders[0], target, [manifest, *(name for _, name in moves)], False, where="--move", of="the images")
    entries = [{"image": os.path.abspath(file.path), "output": name, "sha256": file.sha256} for file, name in moves]
    write_manifest(target / manifest, {"command": COMMAND, "images": entries})
    for file, name in progress(moves, len(moves)):
        with writing_to(target / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            _move(file.path, target / name)
    return len(moves)


def _move(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # onto another disk: the file is whole there before it goes here
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
            with contextlib.suppress(OSError):
                shutil.copystat(source, temporary)
        source.unlink()
