"""Which image files a data set has: folders, lists and lmdb, with errors that name the first offenders."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from basicsr_plugins.core.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "first_few", "image_files", "listed_files", "lmdb_keys", "need_folder"]

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


def image_files(folder: str | os.PathLike[str], where: str, recursive: bool = False) -> list[Path]:
    """Return the image files of a folder, sorted.

    Raises:
        DataError: No folder, or no image in it.
    """
    root = need_folder(folder, where)
    found: list[Path] = []
    others: list[Path] = []
    if recursive:
        walk = ((Path(top), name) for top, _, names in os.walk(root) for name in names)
    else:
        walk = ((root, entry.name) for entry in os.scandir(root) if entry.is_file())
    for top, name in walk:
        if name.startswith("."):
            continue
        (found if name.lower().endswith(IMAGE_SUFFIXES) else others).append(top / name)
    if not found:
        raise DataError(f"{where}: no image in {root}. {_what_else(root, others, recursive)}")
    return sorted(found)


def _what_else(root: Path, others: Sequence[Path], recursive: bool) -> str:
    if others:
        return f"It has {first_few(sorted(path.name for path in others))}; images end in {', '.join(IMAGE_SUFFIXES)}."
    folders = [] if recursive else sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if folders:
        return f"It has sub-folders ({first_few(folders)}): set 'recursive: true' or name one of them."
    return "The folder is empty."


def listed_files(root: str | os.PathLike[str], meta_info_file: str, where: str) -> list[Path]:
    """Return the files that a meta file names, one per line; what follows the first space is passed over.

    Raises:
        DataError: No such list, an empty one, or files that are not there.
    """
    folder = need_folder(root, f"{where}.dataroot_gt")
    path = Path(meta_info_file).expanduser()
    if not path.is_file():
        raise DataError(f"{where}.meta_info_file: there is no file {path}.")
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    # a name may hold a space; BasicSR writes "name.png (h,w,c)", so only such an ending is cut off
    files = [folder / (name if (folder / name).exists() else name.split(" ")[0]) for name in names]
    if not files:
        raise DataError(f"{where}.meta_info_file: {path} names no image.")
    missing = [file for file in files if not file.exists()]
    if missing:
        raise DataError(
            f"{where}.meta_info_file: {len(missing)} of {len(files)} files named in {path} are not in {folder}: "
            f"{first_few(file.name for file in missing)}."
        )
    return files


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
            "Its scripts/data_preparation/create_lmdb.py makes one; or leave out 'io_backend' to read a plain folder."
        )
    keys: dict[str, tuple[int, int] | None] = {}
    for line in meta.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        shape = rest.partition(")")[0].strip("( ").split(",")
        size = (
            (int(shape[0]), int(shape[1]))
            if len(shape) >= 2 and all(part.strip().isdigit() for part in shape)
            else None
        )
        keys[os.path.splitext(name)[0]] = size
    if not keys:
        raise DataError(f"{where}: {meta} names no image.")
    return keys
