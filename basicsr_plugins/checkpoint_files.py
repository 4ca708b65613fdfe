"""Read and write checkpoint files without ever running what is inside them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import torch

from basicsr_plugins.errors import CheckpointError, DependencyError, one_of

__all__ = ["read", "unwrap", "write"]

#: Where containers keep the weights: BasicSR, Lightning and DehazeFormer, FFA-Net, others.
ENTRIES = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "weights")
#: What wrappers put before each key: DDP, torch.compile, PromptIR's Lightning module.
PREFIXES = ("module.", "_orig_mod.", "net.")


def read(path: Union[str, Path], entry: Optional[str] = None) -> dict[str, torch.Tensor]:
    """Return the bare state dict in a ``.safetensors``, ``.pth``, ``.pt``, ``.ckpt`` or ``.pk`` file, on the CPU.

    Args:
        path: The file.
        entry: Which entry of a container to take (``params``, ``state_dict`` ...); the usual ones are tried if
            left out, ``params_ema`` first.

    Raises:
        CheckpointError: No such file, not a checkpoint, or one that holds objects other than tensors and plain numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file.")
    if path.suffix == ".safetensors":
        return unwrap(_safetensors().load_file(path) if _is_safetensors(path) else _refuse(path), entry, str(path))
    try:
        with _plain_numbers():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{path}: refused, because it holds more than tensors, and unpickling that can run foreign code "
            f"({reason}). Save only the state dict, or a .safetensors file, where the checkpoint comes from."
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not a checkpoint that torch can read ({error}).") from error
    return unwrap(content, entry, str(path))


def unwrap(content: object, entry: Optional[str] = None, where: str = "state_dict") -> dict[str, torch.Tensor]:
    """Return the state dict inside a container, without the prefixes of wrappers.

    Args:
        content: A state dict, or a mapping that holds one under one of the usual names.
        entry: The name, where several are there.
        where: What to call it in messages.

    Raises:
        CheckpointError: There are no tensors, or other things among them.
    """
    if isinstance(content, Mapping) and entry is not None:
        if entry not in content:
            raise CheckpointError(f"{where}: {one_of(entry, content, 'entry')}")
        content = content[entry]
    while isinstance(content, Mapping) and not any(isinstance(value, torch.Tensor) for value in content.values()):
        inner = next((content[name] for name in ENTRIES if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not any(isinstance(value, torch.Tensor) for value in content.values()):
        held = (
            f"only {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else type(content).__name__
        )
        raise CheckpointError(f"{where}: there are no weights in it, but {held}; looked for {', '.join(ENTRIES)}.")
    strange = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise CheckpointError(
            f"{where}: {len(strange)} of {len(content)} entries are not tensors, the first is {str(strange[0])!r} "
            f"({type(content[strange[0]]).__name__}). Expected a state dict, or one under {', '.join(ENTRIES)}."
        )
    state = dict(content)
    prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), None)
    while prefix:
        state = {key[len(prefix) :]: value for key, value in state.items()}
        prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), None)
    return state


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
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    # own, contiguous memory for each tensor: safetensors refuses shared memory, and a view would save its whole base
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state_dict.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            metadata = {"format": "pt"}
            if network_opt is not None:
                metadata["network_g"] = json.dumps(dict(network_opt))
            _safetensors().save_file(weights, partial, metadata=metadata)
        else:
            torch.save({"params": weights}, partial)
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error}).") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError:
        raise DependencyError("safetensors files need the package safetensors: pip install safetensors.") from None
    return safetensors.torch


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _refuse(path: Path) -> Any:
    raise CheckpointError(f"{path}: not a safetensors file.")


def _plain_numbers() -> Any:
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
