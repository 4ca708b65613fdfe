"""Pad an image to the size that a network needs, so that every network takes an image of any size."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["crop_to", "pad_to_multiple"]


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
    bottom = max(-(-h // multiple) * multiple, at_least) - h
    right = max(-(-w // multiple) * multiple, at_least) - w
    if not bottom and not right:
        return x
    if mode == "zeros":
        return F.pad(x, (0, right, 0, bottom))
    down, aside = min(bottom, h - 1), min(right, w - 1)
    x = F.pad(x, (0, aside, 0, down), mode="reflect")
    if bottom > down or right > aside:
        x = F.pad(x, (0, right - aside, 0, bottom - down), mode="replicate")
    return x


def crop_to(x: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Return the top left ``h`` x ``w`` part of ``x``, or ``x`` itself where it has that size."""
    return x if x.shape[-2:] == (h, w) else x[..., :h, :w]
