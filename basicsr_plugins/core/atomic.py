"""Files that are either complete or absent: written beside their place, flushed and renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from basicsr_plugins.core.errors import CheckpointError, PluginError

__all__ = ["atomic_path", "remove_leftovers", "writing_to"]

TEMPORARY = ".incomplete"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it is flushed to disk and renamed to ``path``.

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
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _flush_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


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
        raise CheckpointError(
            f"{path} cannot be written: {error}. The file that stood there before is kept."
        ) from error


def _flush_folder(folder: Path) -> None:
    """Put the new name on the disk as well, where the system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: str | Path) -> None:
    """Delete the temporary files of processes that were killed while they wrote."""
    folder = Path(folder)
    for file in folder.glob(f"*{TEMPORARY}") if folder.is_dir() else ():
        process = file.name[: -len(TEMPORARY)].rpartition(".")[2]
        if process.isdigit() and not _is_running(int(process)):
            file.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
