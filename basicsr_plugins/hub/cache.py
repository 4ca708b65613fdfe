"""The folder that holds published weights: ``models/NAME/FILE``, and ``FILE.json`` beside it, which holds its hash."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any, Optional

from basicsr_plugins.core.atomic import atomic_path
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.hub.published import PublishedModel

__all__ = [
    "VARIABLE",
    "WEIGHT_SUFFIXES",
    "cache_folder",
    "check_held",
    "held_file",
    "model_folder",
    "sha256_of",
    "write_record",
]

#: The environment variable that names the folder.
VARIABLE = "BASICSR_PLUGINS_CACHE"
#: Of files of weights, the first one first where several lie side by side.
WEIGHT_SUFFIXES = (".pth", ".safetensors", ".pt", ".ckpt", ".pk")
_CHUNK = 1 << 22
_logger = logging.getLogger("basicsr")


def cache_folder() -> Path:
    """Return ``$BASICSR_PLUGINS_CACHE``, else ``basicsr_plugins`` in the user's folder for caches."""
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # the standard says to pass over a relative one
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "basicsr_plugins"


def model_folder(model: PublishedModel) -> Path:
    """Return the folder of one model, which need not exist."""
    return cache_folder() / "models" / model.name


def held_file(model: PublishedModel) -> Optional[Path]:
    """Return the model's file where it is there: under its name, or any one file of weights that a user put there.

    Raises:
        OptionError: There are several, none of them under its name.
    """
    folder = model_folder(model)
    if (folder / model.file).is_file():
        return folder / model.file
    found = sorted(each for each in folder.glob("*") if each.suffix.lower() in WEIGHT_SUFFIXES and each.is_file())
    if len(found) > 1:
        names = ", ".join(each.name for each in found[:5])
        raise OptionError(f"{model.name}: {folder} holds {names}, and none is called {model.file}: keep one of them.")
    return found[0] if found else None


def check_held(model: PublishedModel, path: Path) -> None:
    """Compare a file with the published hash, else with the one that was recorded when it was new here.

    Raises:
        CheckpointError: It is another file, or has changed.
    """
    found, recorded = sha256_of(path), _recorded(path)
    if model.sha256 and found != model.sha256:
        raise CheckpointError(
            f"{path} is not the published {model.name}: its sha256 is {found}, and {model.sha256} was published; "
            f"delete it, and take {model.file} from {model.address}."
        )
    if recorded not in ("", found):
        raise CheckpointError(
            f"{path} has changed since it came here (sha256 {found} instead of {recorded}): delete it, or, where you "
            f"replaced it yourself, delete {_record_of(path)}."
        )
    if not recorded:
        try:
            write_record(path, {"sha256": found, "size": path.stat().st_size, "from": "put here by hand"})
        except CheckpointError as error:  # a cache for many users may well be read-only
            _logger.warning("The hash of %s cannot be recorded, so a later change goes unseen: %s", path, error)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        CheckpointError: It cannot be read.
    """
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_CHUNK):
                found.update(block)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    return found.hexdigest()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write what is known of a file beside it.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    with atomic_path(_record_of(path)) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _recorded(path: Path) -> str:
    record = _record_of(path)
    if not record.is_file():
        return ""
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{record} cannot be read ({error}): delete it, and the hash is recorded anew."
        ) from error
