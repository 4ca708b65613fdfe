"""A folder that holds one network: ``model.safetensors``, and ``config.json`` that says how to build it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

from basicsr_plugins.core.errors import CheckpointError

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "folder_network", "folder_weights"]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
#: The entry of ``config.json`` that holds what an option file calls so.
ENTRY = "network_g"


def folder_weights(folder: Path) -> Path:
    """Return the file of weights in a folder.

    Raises:
        CheckpointError: There is none.
    """
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        held = ", ".join(sorted(each.name for each in folder.iterdir())[:8]) or "nothing"
        raise CheckpointError(f"{folder}: there is no {WEIGHTS_FILE} in this folder; it holds {held}.")
    return file


def folder_network(folder: Path) -> Optional[dict[str, Any]]:
    """Return the ``network_g`` in a folder's ``config.json``; None without that file, or where others wrote it.

    Raises:
        CheckpointError: The file is no JSON, or its ``network_g`` names no type.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict) or ENTRY not in content:
        return None
    network_opt = content[ENTRY]
    if not isinstance(network_opt, dict) or not isinstance(network_opt.get("type"), str):
        raise CheckpointError(f"{file}: {ENTRY} has to be a mapping with the network's type, as in an option file.")
    return network_opt
