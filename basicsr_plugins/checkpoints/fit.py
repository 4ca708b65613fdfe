"""Weights into a network, or which of them do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from basicsr_plugins.core.errors import CheckpointError

__all__ = ["load_state"]


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


def _first(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
