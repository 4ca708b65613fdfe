"""Several processes as one: equal starts, one gradient average per step, results gathered in order.

Networks are not wrapped in DistributedDataParallel. A step of ours may hold several forward and backward passes, some
of which leave parameters unused (DCPT's second phase, PromptIR's dead layers); DDP's reducer hangs or raises there, or
syncs once per pass. Gradients are averaged once, after the last backward pass of the step. For networks of 10 to 100 M
parameters the overlap that DDP offers hides a transfer that is a small part of a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Callable

import torch
import torch.distributed as dist
from torch import nn

__all__ = [
    "any_rank",
    "any_rank_each",
    "average_gradients",
    "gather_objects",
    "is_distributed",
    "rank",
    "send_from_rank_0",
    "world_size",
]


def is_distributed() -> bool:
    """Whether a process group with more than one process is running."""
    return world_size() > 1


def rank() -> int:
    """Return this process's number, 0 outside distributed runs."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 outside distributed runs."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def send_from_rank_0(network: nn.Module) -> None:
    """Give every process the parameters and buffers of rank 0."""
    if is_distributed():
        _together([*network.parameters(), *network.buffers()], lambda flat: dist.broadcast(flat, 0))


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], used: Sequence[bool] | None = None) -> None:
    """Average the gradients over the processes; a parameter that some rank did not use counts as zero there.

    Parameters that no rank used keep ``grad = None``, so that optimizers leave them (and their momentum) alone.

    Args:
        parameters: The same on every rank.
        used: Whether some rank has a gradient, for each of them; None asks the ranks.
    """
    parameters = list(parameters)
    if not is_distributed() or not parameters:
        return
    if used is None:
        mine = [parameter.grad is not None for parameter in parameters]
        used = any_rank_each(torch.tensor(mine, device=parameters[0].device))
    chosen = [parameter for parameter, flag in zip(parameters, used) if flag]
    for parameter in chosen:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _together([parameter.grad for parameter in chosen], _average)


def _average(flat: torch.Tensor) -> None:
    dist.all_reduce(flat)
    flat /= world_size()


def _together(tensors: Iterable[Any], collective: Callable[[torch.Tensor], Any]) -> None:
    """Run a collective over all tensors of a type as one, in place."""
    by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for group in by_dtype.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        collective(flat)
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group])):
            tensor.copy_(part.view_as(tensor))


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on any rank, so that all decide alike."""
    return any_rank_each(torch.tensor([flag], device=device))[0] if is_distributed() else flag


def any_rank_each(flags: torch.Tensor) -> list[bool]:
    """Return for each of these flags whether it is set on any rank: one exchange, one wait for the device."""
    values = flags.to(torch.int32)
    if is_distributed():
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return [bool(value) for value in values.tolist()]


def gather_objects(items: list[Any]) -> list[Any]:
    """Return the items of all ranks, rank by rank, on every rank."""
    if not is_distributed():
        return items
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]
