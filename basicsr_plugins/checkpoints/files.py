"""Checkpoint files: complete or absent when written, read without running code from them."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from basicsr_plugins import __version__
from basicsr_plugins.checkpoints.find import WRAPPERS, find_weights
from basicsr_plugins.checkpoints.whole import CHECKSUM, check_archive, check_tensors, checksum, with_sums
from basicsr_plugins.core.atomic import atomic_path, usual_mode
from basicsr_plugins.core.errors import CheckpointError, DependencyError

__all__ = [
    "is_complete",
    "own_memory",
    "read",
    "read_checkpoint",
    "read_weights",
    "recorded_network",
    "save",
    "write",
    "write_network_file",
    "write_safetensors",
]

_logger = logging.getLogger("basicsr")
#: Suffixes that are listed where a file is missing.
SUFFIXES = (".pth", ".pt", ".safetensors", ".state", ".ckpt")


def is_complete(path: str | Path) -> bool:
    """Whether a file that ``save`` wrote is there to its last byte (its archive's directory stands at the end)."""
    return zipfile.is_zipfile(path)


def read_checkpoint(path: str | Path) -> Any:
    """Read a ``.pth``, ``.state``, ``.ckpt`` ... or ``.safetensors`` file onto the CPU without running code from it.

    Raises:
        CheckpointError: No such file; it is truncated or has changed since it was written; or it holds other objects
            than tensors and plain values.
        DependencyError: The package safetensors is missing.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint file. {_neighbours(path)}")
    if _is_safetensors(path):
        with _open_safetensors(path) as file:
            names = file.keys()  # the file object itself cannot be iterated
            state = {name: file.get_tensor(name) for name in names}
            metadata = file.metadata() or {}
        check_tensors(path, state, metadata)
        return state
    check_archive(path)
    try:
        with _plain_numbers():
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of tensors and plain values: {_reason(error)} It is truncated, no "
            "checkpoint at all, or holds other objects, which are refused because loading them can run code: save only "
            "the state dict, or a .safetensors file, where it comes from."
        ) from error


def read(path: str | Path, entry: Optional[str] = None) -> dict[str, Tensor]:
    """Return the bare state dict in a ``.safetensors``, ``.pth``, ``.pt``, ``.ckpt`` or ``.pk`` file, on the CPU.

    Args:
        path: The file.
        entry: Which entry of a container to take; see ``find_weights``.

    Raises:
        CheckpointError: No such file, not a checkpoint, or one that holds objects other than tensors and plain numbers.
        DependencyError: The package safetensors is missing.
    """
    return find_weights(read_checkpoint(path), entry, path)


def read_weights(path: str | Path, key: Optional[str] = "params") -> dict[str, Tensor]:
    """Read a state dict like ``read``, under the network's own names: only DDP's and torch.compile's prefixes go.

    A network may well keep everything in a part called ``net``, and adapters remember the names of its layers.
    """
    return find_weights(read_checkpoint(path), key, path, WRAPPERS)


def recorded_network(path: str | Path, content: Any) -> Optional[dict[str, Any]]:
    """Return the ``network_g`` that ``write_network_file`` recorded, or None for files of others.

    Args:
        path: The file.
        content: What ``read_checkpoint`` returned for it.
    """
    if _is_safetensors(path):
        with _open_safetensors(path) as file:
            text = (file.metadata() or {}).get("network_g", "null")
        try:
            recorded = json.loads(text)
        except ValueError:
            return None
    else:
        ours = isinstance(content, Mapping) and "basicsr_plugins" in content  # others have a "network" of their own
        recorded = content["network"] if ours and "network" in content else None
    return dict(recorded) if isinstance(recorded, Mapping) and isinstance(recorded.get("type"), str) else None


def save(value: Any, path: str | Path) -> None:
    """Write ``value`` with ``torch.save``, completely or not at all."""
    with atomic_path(path) as temporary, with_sums():
        torch.save(value, temporary)


def write(path: str | Path, state_dict: Mapping[str, Tensor], network_opt: Optional[Mapping[str, Any]] = None) -> None:
    """Write weights as ``.safetensors``, or as BasicSR does (``{"params": ...}``) for any other suffix; atomically.

    Args:
        path: The file; an old one is replaced only when the new one is complete.
        state_dict: The weights.
        network_opt: The ``network_g`` that builds the network; recorded in the file, so that ``load`` can build it.

    Raises:
        CheckpointError: The file cannot be written.
        DependencyError: The package safetensors is missing.
    """
    write_network_file(path, {"params": own_memory(state_dict)}, network_opt)


def write_network_file(
    path: str | Path, states: Mapping[str, Mapping[str, Tensor]], network_opt: Optional[Mapping[str, Any]] = None
) -> None:
    """Write a checkpoint of one network with everything that is needed to build it again; atomically.

    Args:
        path: ``.safetensors`` takes one state dict, ``params_ema`` where there is one, and records the network in its
            metadata. Any other suffix becomes a BasicSR file: ``states``, and beside them ``network``, a plain dict.
        states: State dicts by entry: ``params``, ``params_ema``.
        network_opt: The ``network_g`` that builds the network.

    Raises:
        CheckpointError: The file cannot be written.
        DependencyError: The package safetensors is missing.
    """
    recorded = _plain(network_opt)
    if _is_safetensors(path):
        write_safetensors(
            states["params_ema"] if "params_ema" in states else states["params"],
            path,
            {} if recorded is None else {"network_g": json.dumps(recorded)},
        )
        return
    content: dict[str, Any] = {
        entry: {key: value.detach().cpu() for key, value in state.items()} for entry, state in states.items()
    }
    if recorded is not None:
        content.update(network=recorded, basicsr_plugins=__version__)
    save(content, path)


def write_safetensors(state: Mapping[str, Tensor], path: str | Path, metadata: Optional[dict[str, str]] = None) -> None:
    """Write a state dict as ``.safetensors``, completely or not at all.

    Raises:
        CheckpointError: The file cannot be written.
        DependencyError: The package safetensors is missing.
    """
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise DependencyError(f"{path}: pip install safetensors to write this format.") from error
    metadata = {"format": "pt", "basicsr_plugins": __version__, **(metadata or {})}
    state = own_memory(state)  # safetensors refuses tensors that share memory, which tied weights do
    metadata[CHECKSUM] = checksum(state, metadata)
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata)
        usual_mode(temporary)


def own_memory(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, each contiguous in memory of its own: saving a view would save its whole base."""
    return {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}


def _is_safetensors(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".safetensors"


@contextlib.contextmanager
def _open_safetensors(path: str | Path) -> Iterator[Any]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise DependencyError(f"{path}: pip install safetensors to read this format.") from error
    try:
        with safe_open(Path(path).expanduser(), framework="pt") as file:
            yield file
    except Exception as error:  # the package raises types of its own
        raise CheckpointError(
            f"{path}: cannot be read as safetensors ({error}). It is truncated or another kind of file."
        ) from error


def _plain(network_opt: Optional[Mapping[str, Any]]) -> Optional[dict[str, Any]]:
    """Return options as plain dictionaries, lists and values, which every torch loads with ``weights_only=True``."""
    if network_opt is None:
        return None
    try:
        return json.loads(json.dumps(dict(network_opt)))
    except (TypeError, ValueError) as error:  # never lose weights for the sake of their label
        _logger.warning("The network's options are no plain values (%s) and are not recorded with its weights.", error)
        return None


def _plain_numbers() -> contextlib.AbstractContextManager[Any]:
    """Let the unpickler also build NumPy numbers and argparse name spaces: harmless, and in published containers."""
    safe_globals = getattr(torch.serialization, "safe_globals", None)
    if safe_globals is None:  # torch before 2.5
        return contextlib.nullcontext()
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")}
    allowed: list[Any] = [argparse.Namespace, np.dtype, *kinds]
    allowed += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return safe_globals(allowed)


def _reason(error: Exception) -> str:
    """Return what torch says is wrong, without its advice to switch its safe loading off."""
    text = str(error).strip()
    refused = re.search(r"GLOBAL:? ['\"]?([\w.]+)", text)
    if refused:
        return f"it holds a {refused.group(1)}."
    line = text.splitlines()[0] if text and "weights_only" not in text else type(error).__name__
    return line.rstrip(".") + "."


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist either."
    names = sorted(file.name for file in path.parent.iterdir() if file.suffix.lower() in SUFFIXES)
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{path.parent} holds: {shown or 'no checkpoints'}."
