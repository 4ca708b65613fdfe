"""A published model's file: out of the cache, else over the network, else one sentence on how to put it there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

from basicsr_plugins.checkpoints import read
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.hub.cache import check_held, held_file, model_folder, sha256_of, write_record
from basicsr_plugins.hub.download import UnfetchableError, download
from basicsr_plugins.hub.published import PublishedModel

__all__ = ["by_hand", "fetch"]

_logger = logging.getLogger("basicsr")


def fetch(model: PublishedModel, show: Optional[Callable[..., Any]] = None) -> Path:
    """Return the file of a model; the first time it is downloaded, later its hash is compared.

    Args:
        model: A row of the table.
        show: ``tqdm`` or its like, for the download.

    Raises:
        OptionError: This package cannot run it.
        DependencyError: It does not come, or lies where only a person can fetch it.
        CheckpointError: The file has changed, is another one, or cannot be written.
    """
    if model.missing:
        raise OptionError(f"{model.name} cannot be run here: {model.missing}.")
    held = held_file(model)
    if held is None and model.is_folder:
        raise DependencyError(
            f"{model.name} lies in a Google Drive folder, which cannot be fetched like a file: take {model.file} from "
            f"{model.address} in a browser and put it into {model_folder(model)}."
        )
    if held is None:
        with _locked(model):
            held = held_file(model)  # another process may have fetched it by now
            if held is None:
                return _fetched(model, show)
    check_held(model, held)
    return held


def by_hand(model: PublishedModel) -> str:
    """Return how to do without the download."""
    return f"by hand: take {model.file} from {model.address} and put it into {model_folder(model)}"


def _fetched(model: PublishedModel, show: Optional[Callable[..., Any]]) -> Path:
    target = model_folder(model) / model.file
    found = ""

    def check(path: Path) -> None:
        nonlocal found
        found = sha256_of(path)
        if model.sha256 and found != model.sha256:
            raise UnfetchableError(f"another file came: its sha256 is {found}, and {model.sha256} was published")
        try:
            read(path)
        except CheckpointError as error:
            size = path.stat().st_size
            reason = str(error).replace(f"{path}: ", "").replace(f"{path} ", "").rstrip(".")
            raise UnfetchableError(f"the {size} bytes that came are no checkpoint ({reason})") from error

    try:
        said = download(model.address, target, check, model.size, show)
    except UnfetchableError as error:
        raise DependencyError(f"{model.name} cannot be fetched: {error}; {by_hand(model)}.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"{target} cannot be written: {reason}; {by_hand(model)}.") from error
    told = {key: said[key] for key in ("etag", "modified") if said.get(key)}
    write_record(target, {"sha256": found, "size": target.stat().st_size, "from": model.address, **told})
    return target


@contextmanager
def _locked(model: PublishedModel) -> Iterator[None]:
    """Let one process at a time download a model; the system frees the lock of one that is killed.

    Raises:
        CheckpointError: The folder cannot be written, or its disk knows no locks.
    """
    from filelock import FileLock, Timeout  # comes with torch

    folder = model_folder(model) / ".incomplete"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _logger.warning("%s: another process is fetching it; waiting for that.", model.name)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{folder} cannot be written: {reason}; {by_hand(model)}.") from error
    try:
        yield
    finally:
        lock.release()
