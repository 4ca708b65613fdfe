"""Files and folders that are either complete or absent: written beside their place, flushed and renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from basicsr_plugins.core.errors import CheckpointError, PluginError

__all__ = [
    "atomic_folder",
    "atomic_named",
    "atomic_path",
    "is_leftover",
    "remove_leftovers",
    "usual_mode",
    "writing_to",
]

TEMPORARY = ".incomplete"
#: A folder that is being replaced: for a moment it may be the only copy.
REPLACED = ".replaced"


@contextlib.contextmanager
def atomic_path(path: str | Path, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it is flushed to disk and renamed to ``path``.

    Args:
        path: What is written.
        flush: False leaves the disk its own time: for one of many thousand small files that can be made again.

    Raises:
        CheckpointError: The folder cannot be written or the disk is full. Whatever stood at ``path`` is still there.
    """
    path = Path(path)
    # the process number keeps two runs apart; the ending keeps it out of every search for *.state and *.pth
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    with writing_to(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _put(temporary, path, flush)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def atomic_named(path: str | Path) -> Iterator[Path]:
    """Do what ``atomic_path`` does with a temporary file that has the final name, in a folder of its own.

    So that it can be read before it counts by whatever goes by the ending of a name.

    Raises:
        CheckpointError: The folder cannot be written or the disk is full. Whatever stood at ``path`` is still there.
    """
    path = Path(path)
    folder = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    with writing_to(path):
        remove_leftovers(path.parent)
        try:
            folder.mkdir(parents=True)
            yield folder / path.name
            _put(folder / path.name, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def writing_to(path: str | Path) -> Iterator[None]:
    """Turn whatever says that ``path`` cannot be written into one error.

    Raises:
        CheckpointError: An ``OSError``; a ``RuntimeError``, which torch.save makes of a full disk; or safetensors' own.
    """
    try:
        yield
    except PluginError:
        raise
    except Exception as error:
        if not isinstance(error, (OSError, RuntimeError)) and type(error).__name__ != "SafetensorError":
            raise
        reason = str(error).rstrip(".") if isinstance(error, OSError) else f"{error} (is the disk full?)"
        raise CheckpointError(
            f"{path} cannot be written: {reason}. The file that stood there before is kept."
        ) from error


def _put(temporary: Path, path: Path, flush: bool = True) -> None:
    if flush:
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if flush:
        _flush_folder(path.parent)


def usual_mode(path: str | Path) -> None:
    """Give a file the permissions of a new one: safetensors makes files that only their owner reads."""
    mask = os.umask(0o077)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def _flush_folder(folder: Path) -> None:
    """Put the new name on the disk as well, where the system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success it is flushed to disk and takes the place of ``path``.

    No system replaces a full folder by one call, so two renames do. After a kill between them ``remove_leftovers``
    puts the old folder back.

    Raises:
        CheckpointError: It cannot be written. Whatever stood at ``path`` is still there.
    """
    path = Path(path)
    fresh, old = (path.with_name(f"{path.name}.{os.getpid()}{ending}") for ending in (TEMPORARY, REPLACED))
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        try:
            fresh.mkdir()
            yield fresh
            _flush_tree(fresh)
            if path.exists():
                os.replace(path, old)
            os.replace(fresh, path)
            _flush_folder(path.parent)
        finally:
            if old.exists() and not path.exists():
                os.replace(old, path)
            for folder in (fresh, old):
                shutil.rmtree(folder, ignore_errors=True)


def _flush_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            with open(Path(root, name), "rb+") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(root))


def is_leftover(path: str | Path) -> bool:
    """Whether a file or folder is unfinished, or the old copy of one that was just being replaced."""
    stem, ending = os.path.splitext(Path(path).name)
    return ending in (TEMPORARY, REPLACED) and stem.rpartition(".")[2].isdigit()


def remove_leftovers(folder: str | Path) -> None:
    """Delete what processes that were killed while they wrote left behind; put an only copy back in its place.

    A folder that cannot be written stays as it is: readers pass left-overs over.
    """
    folder = Path(folder)
    for found in filter(is_leftover, sorted(folder.iterdir()) if folder.is_dir() else ()):
        name, _, process = found.stem.rpartition(".")
        if _is_running(int(process)):
            continue
        with contextlib.suppress(OSError):
            if found.suffix == REPLACED and not (folder / name).exists():
                os.replace(found, folder / name)
            elif found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
