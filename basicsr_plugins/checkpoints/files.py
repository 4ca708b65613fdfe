"""Checkpoint files: complete or absent when written, read without running code."""

from __future__ import annotations

import argparse
import contextlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import torch
from torch import Tensor

from basicsr_plugins.checkpoints.find import pick_weights, unwrap
from basicsr_plugins.core.atomic import atomic_path
from basicsr_plugins.core.errors import CheckpointError, DependencyError

__all__ = [
    "is_complete",
    "own_memory",
    "read",
    "read_checkpoint",
    "read_weights",
    "save",
    "write",
    "write_safetensors",
]


def is_complete(path: str | Path) -> bool:
    """Whether a file that ``save`` wrote is there to its last byte (its archive's directory stands at the end)."""
    return zipfile.is_zipfile(path)


def save(value: Any, path: str | Path) -> None:
    """Write ``value`` with ``torch.save``, completely or not at all."""
    with atomic_path(path) as temporary:
        torch.save(value, temporary)


def write_safetensors(state: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write a state dict as ``.safetensors``, completely or not at all.

    Raises:
        DependencyError: The package safetensors is missing.
    """
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise DependencyError(f"{path}: pip install safetensors to write this format.") from error
    with atomic_path(path) as temporary:
        # safetensors refuses tensors that share memory, which tied weights do
        save_file(own_memory(state), temporary, metadata)


def own_memory(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, each contiguous in memory of its own: saving a view would save its whole base."""
    return {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}


def read_checkpoint(path: str | Path) -> Any:
    """Read a ``.pth``, ``.state``, ``.ckpt`` ... or ``.safetensors`` file onto the CPU without running code from it.

    Raises:
        CheckpointError: No such file; it is truncated; or it holds other objects than tensors and plain values.
        DependencyError: The package safetensors is missing.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint file. {_neighbours(path)}")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise DependencyError(f"{path}: pip install safetensors to read this format.") from error
        try:
            return load_file(path)
        except Exception as error:  # the package raises types of its own
            raise CheckpointError(
                f"{path}: cannot be read as safetensors ({error}). It is truncated or another kind of file."
            ) from error
    try:
        with _plain_numbers():
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of tensors and plain values: {reason} It is truncated, no "
            "checkpoint at all, or holds other objects, which are refused because loading them can run code: save only "
            "the state dict, or a .safetensors file, where it comes from."
        ) from error


def _plain_numbers() -> contextlib.AbstractContextManager[Any]:
    """Let the unpickler also build NumPy numbers and argparse name spaces: harmless, and in published containers."""
    safe_globals = getattr(torch.serialization, "safe_globals", None)
    if safe_globals is None:  # torch before 2.5
        return contextlib.nullcontext()
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")}
    allowed: list[Any] = [argparse.Namespace, np.dtype, *kinds]
    allowed += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return safe_globals(allowed)


def read_weights(path: str | Path, key: str | None = "params") -> dict[str, Tensor]:
    """Read the state dict in a checkpoint file; see ``read_checkpoint`` and ``pick_weights``."""
    return pick_weights(read_checkpoint(path), path, key)


def read(path: Union[str, Path], entry: Optional[str] = None) -> dict[str, torch.Tensor]:
    """Return the bare state dict in a ``.safetensors``, ``.pth``, ``.pt``, ``.ckpt`` or ``.pk`` file, on the CPU.

    Args:
        path: The file.
        entry: Which entry of a container to take (``params``, ``state_dict`` ...); the usual ones are tried if
            left out, ``params_ema`` first.

    Raises:
        CheckpointError: No such file, not a checkpoint, or one that holds objects other than tensors and plain numbers.
        DependencyError: The package safetensors is missing.
    """
    return unwrap(read_checkpoint(path), entry, str(path))


def write(
    path: Union[str, Path], state_dict: Mapping[str, torch.Tensor], network_opt: Optional[Mapping[str, Any]] = None
) -> None:
    """Write weights as ``.safetensors``, or as BasicSR does (``{"params": ...}``) for any other suffix; atomically.

    Args:
        path: The file; an old one is replaced only when the new one is complete.
        state_dict: The weights.
        network_opt: What builds the network; kept as JSON in the metadata of a safetensors file.

    Raises:
        CheckpointError: The file cannot be written.
        DependencyError: The package safetensors is missing.
    """
    if Path(path).suffix != ".safetensors":
        save({"params": own_memory(state_dict)}, path)
        return
    metadata = {"format": "pt"}
    if network_opt is not None:
        metadata["network_g"] = json.dumps(dict(network_opt))
    write_safetensors(state_dict, path, metadata)


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist either."
    names = sorted(
        f.name for f in path.parent.iterdir() if f.suffix in (".pth", ".pt", ".safetensors", ".state", ".ckpt")
    )
    return f"{path.parent} holds: {', '.join(names[:5]) or 'no checkpoints'}."
