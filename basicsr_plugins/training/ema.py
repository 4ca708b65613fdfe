"""The averaged copy of a network: parameters and floating-point buffers, in stock's arithmetic."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["update_average"]


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move ``average`` towards ``network``: ``average = decay * average + (1 - decay) * network``.

    Floating-point buffers (BatchNorm statistics) are averaged as well, which stock forgets; integer ones are copied.
    Buffers and frozen parameters that are equal already stay as they are, to the last bit.

    Args:
        average: The copy.
        network: The network in training, of the same class.
        decay: 0 copies the network.
    """
    targets, sources = [], []
    for name, target in _tensors(average).items():
        source = _tensor_of(network, name)
        moves = source.requires_grad
        source = source.detach().to(target.device, target.dtype)
        if moves:
            targets.append(target)
            sources.append(source)
        elif target.is_floating_point():
            # rounding would let constants (attention masks, frozen weights) drift, and -inf - -inf is NaN
            target.copy_(torch.where(target == source, target, decay * target + (1 - decay) * source))
        else:
            target.copy_(source)
    if targets:
        torch._foreach_mul_(targets, decay)
        torch._foreach_add_(targets, sources, alpha=1 - decay)


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **{name: parameter.data for name, parameter in network.named_parameters()},
        **dict(network.named_buffers()),
    }


def _tensor_of(network: nn.Module, name: str) -> torch.Tensor:
    owner, _, leaf = name.rpartition(".")
    return getattr(network.get_submodule(owner), leaf)
