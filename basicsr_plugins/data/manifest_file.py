"""The file of a manifest: JSON that carries the hash of its own content, so that a changed one is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr_plugins.core.atomic import atomic_path
from basicsr_plugins.core.errors import DataError

__all__ = ["read_manifest", "write_manifest"]

#: Version 1 had no hashes and is still read.
_VERSION = 2
_NONE = "is no manifest of 'basicsr-plugins'"


def write_manifest(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a manifest with its version and hash, whole or not at all, and return its path."""
    versioned = {"version": _VERSION, **content}
    text = json.dumps({**versioned, "sha256": _hash(versioned)}, indent=1)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the content of a manifest.

    Raises:
        DataError: It cannot be read, is of a version that is not known, or is not what was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:  # bytes that are no text, text that is no JSON
        raise DataError(f"{path}: {_NONE} ({error}).") from error
    if not isinstance(content, dict) or "version" not in content:
        raise DataError(f"{path}: {_NONE} (it has no version).")
    version = content["version"]
    if isinstance(version, bool) or version not in (1, _VERSION):
        raise DataError(f"{path}: is of version {version!r}; versions 1 and {_VERSION} are known.")
    written = content.pop("sha256", "")
    if version > 1 and written != _hash(content):
        raise DataError(
            f"{path}: is not as it was written, its hash differs: it is damaged or was edited. One edited on purpose "
            'is read, unverified, with "version": 1.'
        )
    return content


def _hash(content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()
