"""Memory order of a network's parameters."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

__all__ = ["channels_last"]

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """Bring the four-dimensional parameters and buffers of a network into channels-last order, in place.

    ``Module.to(memory_format=...)`` refuses networks with five-dimensional parameters (PromptIR, ABAIRNet).
    """

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

    change: Any = network._apply
    return change(convert)
