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
        average: The copy, ``copy.deepcopy(network)`` at the start.
        network: The network in training, of the same class.
        decay: 0 copies the network.
    """
    # two networks of one class list their tensors in one order; looking each up by its name took longer than the sums
    resting: list[tuple[torch.Tensor, torch.Tensor]] = list(zip(average.buffers(), network.buffers()))
    moving: list[tuple[torch.Tensor, torch.Tensor]] = []
    for pair in zip(average.parameters(), network.parameters()):
        (moving if pair[1].requires_grad else resting).append(pair)
    for target, source in resting:
        source = source.to(target.device, target.dtype)
        if target.is_floating_point():
            # rounding would let constants (attention masks, frozen weights) drift, and -inf - -inf is NaN
            target.copy_(torch.where(target == source, target, decay * target + (1 - decay) * source))
        else:
            target.copy_(source)
    if moving:
        targets = [target for target, _ in moving]
        torch._foreach_mul_(targets, decay)
        torch._foreach_add_(targets, [source.to(t.device, t.dtype) for t, source in moving], alpha=1 - decay)
