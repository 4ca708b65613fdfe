"""A folder that results are written to: nothing of others is replaced, and nothing is written out of it by a link."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.data.files import first_few

__all__ = ["MANIFEST", "clear_the_way", "writing"]

#: What a manifest is called in the folder that it describes.
MANIFEST = "manifest.json"


def clear_the_way(
    root: Path,
    target: Path,
    names: Collection[str],
    overwrite: bool,
    *,
    where: str = "OUT_DIR",
    of: str = "the clean images",
) -> None:
    """Make the folder of the results, if nothing stands in the way of them.

    Args:
        root: Folder that is read.
        target: Folder of the results.
        names: What will be written there, relative.
        overwrite: Whether files of these names are replaced.
        where: The argument that names the folder, for messages.
        of: What is in ``root``, for messages.

    Raises:
        DataError: Files of these names are there, the folders are the same one, a link leads out of it, or it cannot
            be made.
    """
    if target.resolve() == root.resolve():
        raise DataError(f"{where} is the folder of {of} ({root}): name another one.")
    if target.exists() and not target.is_dir():
        raise DataError(f"{where}: {target} is a file, a folder was expected.")
    home, folders_of = target.resolve(), {name: (target / name).parent for name in names}
    inside = {folder: folder.resolve().is_relative_to(home) for folder in set(folders_of.values())}
    outside = [name for name, folder in folders_of.items() if not inside[folder]]
    if outside:
        raise DataError(
            f"{target}: a link leads {first_few(outside)} out of this folder; nothing is written through it."
        )
    there = [name for name in names if os.path.lexists(target / name)]
    there = [name for name in there if name != MANIFEST] or there
    if there and not overwrite:
        raise DataError(f"{target}: {len(there)} file(s) are there already: {first_few(there)}. Add --overwrite.")
    folders = [name for name in there if (target / name).is_dir() and not (target / name).is_symlink()]
    if folders:
        raise DataError(f"{target}: {first_few(folders)} is a folder; a file of that name is to be written.")
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of writing into one sentence.

    Raises:
        DataError: With the path and the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}).") from error
