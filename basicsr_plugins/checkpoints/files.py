"""Bare weights out of any container of the field, and back into files that others read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import torch

from basicsr_plugins.checkpoints import io as checkpoint_io
from basicsr_plugins.core.errors import CheckpointError, one_of

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
        DependencyError: The package safetensors is missing.
    """
    return unwrap(checkpoint_io.read_checkpoint(path), entry, str(path))


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
        DependencyError: The package safetensors is missing.
    """
    if Path(path).suffix != ".safetensors":
        checkpoint_io.save({"params": checkpoint_io.own_memory(state_dict)}, path)
        return
    metadata = {"format": "pt"}
    if network_opt is not None:
        metadata["network_g"] = json.dumps(dict(network_opt))
    checkpoint_io.write_safetensors(state_dict, path, metadata)
