"""Pad an image to the size that a network needs, so that every network takes an image of any size.

While ``torch.jit.trace`` or the ONNX exporter records a network, sides are tensors, and whatever Python decides about
them would hold for the recorded size alone. Nothing is decided then: every step is done, if need be with nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["crop_to", "larger", "pad_to_multiple", "smaller"]


def pad_to_multiple(x: torch.Tensor, multiple: int, mode: str = "reflect", at_least: int = 0) -> torch.Tensor:
    """Return ``x`` padded on the right and at the bottom until both sides are multiples of ``multiple``.

    Reflection is only defined for a pad smaller than the side; what is missing after that repeats the last row or
    column, so one pixel suffices as input. An image that already fits comes back as it is, not as a copy.

    Args:
        x: Images ``(n, c, h, w)``.
        multiple: What both sides have to be multiples of.
        mode: ``reflect`` (as the published inference scripts do) or ``zeros`` (as NAFNet does).
        at_least: Smallest side of the result.
    """
    h, w = x.shape[-2:]
    recorded = torch.jit.is_tracing()
    bottom = larger(h + -h % multiple, at_least) - h
    right = larger(w + -w % multiple, at_least) - w
    if not recorded and not bottom and not right:
        return x
    if mode == "zeros":
        return F.pad(x, (0, right, 0, bottom))
    down, aside = smaller(bottom, h - 1), smaller(right, w - 1)
    x = F.pad(x, (0, aside, 0, down), mode="reflect")
    if recorded or bottom > down or right > aside:
        x = F.pad(x, (0, right - aside, 0, bottom - down), mode="replicate")
    return x


def crop_to(x: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Return the top left ``h`` x ``w`` part of ``x``, or ``x`` itself where it has that size."""
    return x if not torch.jit.is_tracing() and x.shape[-2:] == (h, w) else x[..., :h, :w]


def smaller(a: Any, b: Any) -> Any:
    """Return the smaller one of two sides, which are integers, or tensors of one while a network is recorded."""
    return torch.minimum(*_sides(a, b)) if torch.jit.is_tracing() else min(a, b)


def larger(a: Any, b: Any) -> Any:
    """Return the larger one of two sides, like ``smaller``."""
    return torch.maximum(*_sides(a, b)) if torch.jit.is_tracing() else max(a, b)


def _sides(*sides: Any) -> list[torch.Tensor]:
    return [side if isinstance(side, torch.Tensor) else torch.tensor(side) for side in sides]
