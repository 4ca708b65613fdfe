"""The state dict inside any container of the field, without the prefixes of wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor

from basicsr_plugins.core.errors import CheckpointError, one_of

__all__ = ["pick_weights", "unwrap"]

#: Where containers keep the weights: BasicSR, Lightning and DehazeFormer, FFA-Net, others.
ENTRIES = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "weights")
#: What wrappers put before each key: DDP, torch.compile, PromptIR's Lightning module.
PREFIXES = ("module.", "_orig_mod.", "net.")


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
