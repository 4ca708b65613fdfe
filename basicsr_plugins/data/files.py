"""Which image files a data set has: folders, lists and lmdb, with errors that name the first offenders."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Optional

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.data.lists import find_in_line, list_lines, listed_name

__all__ = ["IMAGE_SUFFIXES", "first_few", "image_files", "listed_files", "lmdb_keys", "need_folder"]

#: Folders that systems put beside images, with thumbnails and deleted files in them; hidden ones are more of them.
_SYSTEM_FOLDERS = ("@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found")
#: What counts as an image, lower case.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def first_few(items: Iterable[object], count: int = 3) -> str:
    """Return ``a, b, c and 7 more`` for an error message."""
    names = [str(item) for item in items]
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")


def need_folder(folder: str | os.PathLike[str], where: str) -> Path:
    """Return the folder as a path.

    Raises:
        DataError: It does not exist, or is a file; the text names the nearest existing folder.
    """
    path = Path(folder).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise DataError(f"{where}: {path} is a file, a folder was expected.")
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    siblings = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
    part = path.relative_to(parent).parts[0] if path != parent else path.name
    close = difflib.get_close_matches(part, siblings, n=1, cutoff=0.5)
    hint = (
        f" Did you mean {parent / close[0]}?" if close else f" {parent} has: {first_few(siblings, 8) or 'no folder'}."
    )
    relative = "" if path.is_absolute() else f" (relative to {Path.cwd()})"
    raise DataError(f"{where}: there is no folder {path}{relative}.{hint}")


def image_files(
    folder: str | os.PathLike[str], where: str, recursive: bool = False, leave_out: Optional[Path] = None
) -> list[Path]:
    """Return the image files of a folder, sorted; hidden files and the folders of systems are passed over.

    Args:
        folder: The folder.
        where: YAML path, for messages.
        recursive: Whether sub-folders are looked into.
        leave_out: A folder that is not looked into.

    Raises:
        DataError: No folder, or no image in it.
    """
    root = need_folder(folder, where)
    found: list[Path] = []
    others: list[Path] = []
    if recursive:
        walk = _walk(root, leave_out)
    else:
        walk = ((root, entry.name) for entry in os.scandir(root) if entry.is_file())
    for top, name in walk:
        if name.startswith("."):
            continue
        (found if name.lower().endswith(IMAGE_SUFFIXES) else others).append(top / name)
    if not found:
        raise DataError(f"{where}: no image in {root}. {_what_else(root, others, recursive)}")
    return sorted(found)


def _walk(root: Path, leave_out: Optional[Path]) -> Iterator[tuple[Path, str]]:
    apart = leave_out.resolve() if leave_out is not None else None
    for top, folders, names in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name.lower() not in _SYSTEM_FOLDERS
            and (apart is None or Path(top, name).resolve() != apart)
        ]
        yield from ((Path(top), name) for name in names)


def _what_else(root: Path, others: Sequence[Path], recursive: bool) -> str:
    if others:
        return f"It has {first_few(sorted(path.name for path in others))}; images end in {', '.join(IMAGE_SUFFIXES)}."
    folders = [] if recursive else sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if folders:
        return f"It has sub-folders ({first_few(folders)}): set 'recursive: true' or name one of them."
    return "The folder is empty."


def listed_files(root: str | os.PathLike[str], meta_info_file: str, where: str) -> list[Path]:
    """Return the files that a meta file names, one per line, such as ``my photo.png (140,150,3)``.

    Raises:
        DataError: No such list, an empty one, or files that are not there.
    """
    folder = need_folder(root, f"{where}.dataroot_gt")
    path = Path(meta_info_file).expanduser()
    lines = [line for _, line in list_lines(path, f"{where}.meta_info_file")]
    if not lines:
        raise DataError(f"{where}.meta_info_file: {path} names no image.")
    found = [find_in_line(folder, line) for line in lines]
    missing = [listed_name(line)[0] for line, file in zip(lines, found) if file is None]
    if missing:
        raise DataError(
            f"{where}.meta_info_file: {len(missing)} of {len(lines)} files named in {path} are not in {folder}: "
            f"{first_few(missing)}."
        )
    return [file for file in found if file is not None]


def lmdb_keys(root: str | os.PathLike[str], where: str) -> dict[str, tuple[int, int] | None]:
    """Return ``key -> (h, w)`` from the ``meta_info.txt`` of an lmdb folder that BasicSR's tool wrote.

    Raises:
        DataError: It is not such a folder.
    """
    folder = need_folder(root, where)
    meta = folder / "meta_info.txt"
    if folder.suffix != ".lmdb" or not meta.is_file():
        raise DataError(
            f"{where}: {folder} is not an lmdb folder of BasicSR (NAME.lmdb with data.mdb and meta_info.txt). "
            "'basicsr-plugins data lmdb' makes one; or leave out 'io_backend' to read a plain folder."
        )
    keys: dict[str, tuple[int, int] | None] = {}
    for _, line in list_lines(meta, where):
        name, size = listed_name(line)
        keys[os.path.splitext(name)[0]] = size
    if not keys:
        raise DataError(f"{where}: {meta} names no image.")
    return keys
