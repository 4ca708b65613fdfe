"""A hash of a set of weights, by which an adapter recognises its base network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Union

import torch
from torch import nn

__all__ = ["fingerprint"]


def fingerprint(weights: Union[nn.Module, Mapping[str, torch.Tensor]]) -> str:
    """Return 16 hexadecimal digits that depend on every name, shape and float32 value, on no device and no key order.

    Args:
        weights: A network without adapters, or its state dict.
    """
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        tensor = tensor.float() if tensor.is_floating_point() else tensor.long()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
