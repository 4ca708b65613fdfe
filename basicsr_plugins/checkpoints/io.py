"""Checkpoints that are either complete or absent: written beside their place and renamed, read without running code."""

from __future__ import annotations

import argparse
import contextlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basicsr_plugins.core.atomic import atomic_path
from basicsr_plugins.core.errors import CheckpointError, DependencyError

__all__ = [
    "is_complete",
    "load_state",
    "numbered_files",
    "own_memory",
    "pick_weights",
    "prune",
    "read_checkpoint",
    "read_weights",
    "save",
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


def pick_weights(content: Any, path: str | Path, key: str | None = "params") -> dict[str, Tensor]:
    """Return the state dict inside a checkpoint.

    Args:
        content: What ``read_checkpoint`` returned.
        path: For messages.
        key: ``params`` or ``params_ema``; the other one is taken where only that one exists, and a bare state dict is
            recognised as such. None takes the content itself.

    Raises:
        CheckpointError: No state dict is found.
    """
    if isinstance(content, Mapping) and key is not None:
        for candidate in dict.fromkeys((key, "params", "params_ema", "state_dict", "model")):
            if isinstance(content.get(candidate), Mapping):
                content = content[candidate]
                break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path} holds no state dict under {key!r}, 'params' or at its top level (but: {found}).")
    return {name[7:] if name.startswith("module.") else name: value for name, value in content.items()}


def load_state(
    network: torch.nn.Module, weights: Mapping[str, Tensor], path: str | Path, strict: bool = True
) -> list[str]:
    """Load weights into a network and return the names that were left alone (only when not strict).

    Raises:
        CheckpointError: Keys or shapes do not fit; the counts and the first few names are listed.
    """
    if hasattr(network, "own_weights"):  # public files of some networks hold more than the network
        weights = network.own_weights(weights)
    own = network.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    reshaped = [n for n in own if n in weights and own[n].shape != weights[n].shape]
    if strict and (missing or unexpected or reshaped):
        lines = [f"{path} does not fit {type(network).__name__}:"]
        for what, names in (("missing", missing), ("unexpected", unexpected)):
            if names:
                lines.append(f"  {len(names)} {what}: {_first(names)}")
        if reshaped:
            shapes = [f"{n} {tuple(weights[n].shape)} instead of {tuple(own[n].shape)}" for n in reshaped]
            lines.append(f"  {len(reshaped)} of another shape: {_first(shapes)}")
        lines.append("  Set the arguments of the network as they were when it was trained, or strict_load_*: false.")
        raise CheckpointError("\n".join(lines))
    fitting = {name: value for name, value in weights.items() if name in own and name not in reshaped}
    network.load_state_dict(fitting, strict=False)
    return missing + unexpected + reshaped


def numbered_files(folder: str | Path, prefix: str, suffix: str) -> dict[int, Path]:
    """Return ``{iteration: file}`` of the files ``<prefix><iteration><suffix>`` in a folder."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)" + re.escape(suffix) + r"$")
    folder = Path(folder)
    found = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        match = pattern.match(file.name)
        if match:
            found[int(match.group(1))] = file
    return found


def prune(folder: str | Path, prefix: str, suffix: str, keep: int) -> None:
    """Delete all but the ``keep`` newest numbered files."""
    files = numbered_files(folder, prefix, suffix)
    for iteration in sorted(files)[:-keep]:
        files[iteration].unlink()


def _first(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist either."
    names = sorted(
        f.name for f in path.parent.iterdir() if f.suffix in (".pth", ".pt", ".safetensors", ".state", ".ckpt")
    )
    return f"{path.parent} holds: {_first(names) or 'no checkpoints'}."
