"""A network as TorchScript: runs wherever PyTorch does, C++ included, without this package."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Callable

import torch
from torch import Tensor, nn

from basicsr_plugins.export.network import Plain
from basicsr_plugins.export.recording import example, in_precision, notes, quietly

__all__ = ["NOTES", "read_torchscript", "record_torchscript", "write_torchscript"]

#: The name of the notes inside the file.
NOTES = "basicsr_plugins.json"


class OneByOne(nn.Module):
    """Runs images through a recording that holds for one image at a time."""

    def __init__(self, recorded: nn.Module) -> None:
        super().__init__()
        self.recorded = recorded

    def forward(self, lq: Tensor) -> Tensor:
        """Restore ``lq`` of (n, c, h, w)."""
        return torch.cat([self.recorded(image) for image in lq.split(1)])


def record_torchscript(plain: Plain, multiple: int, dtype: torch.dtype, batches: bool) -> Any:
    """Return the network as a ``ScriptModule``.

    Args:
        plain: The network.
        multiple: What images are padded to inside.
        dtype: What it computes in.
        batches: Whether the recording takes several images at once; else they go through it one by one.

    Raises:
        CheckpointError: It cannot be recorded.
    """
    with quietly(f"{type(plain.network).__name__} cannot be recorded as TorchScript"):
        recorded = torch.jit.trace(in_precision(plain, multiple, dtype), example(plain), check_trace=False)
        return recorded if batches else torch.jit.script(OneByOne(recorded))


def write_torchscript(module: Any, path: Path, plain: Plain, facts: dict[str, Any]) -> None:
    """Write the module and what there is to know about it."""
    content = io.BytesIO()  # on a full disk, torch's own writer ends the whole process
    with quietly(f"{path.name} cannot be made"):
        torch.jit.save(module, content, _extra_files={NOTES: json.dumps(notes(plain, facts))})
    path.write_bytes(content.getbuffer())


def read_torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    """Return what the file computes, on the CPU."""
    with quietly(f"torch cannot read {path.name}"):
        module = torch.jit.load(str(path), map_location="cpu").eval()

    def restore(images: Tensor) -> Tensor:
        result: Tensor = module(images)
        return result

    return restore
