"""Square windows of a map as token sequences, and attention inside them."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from einops import rearrange

__all__ = ["attend", "clamped_index", "merge_windows", "split_windows"]


def split_windows(x: torch.Tensor, size: int, heads: int) -> torch.Tensor:
    """Cut ``(n, c, h, w)`` into ``(n * windows, heads, size * size, c / heads)``; windows and tokens run row by row."""
    return rearrange(x, "n (heads d) (y a) (x b) -> (n y x) heads (a b) d", heads=heads, a=size, b=size)


def merge_windows(windows: torch.Tensor, size: int, h: int, w: int) -> torch.Tensor:
    """Undo ``split_windows``: ``(n * windows, heads, size * size, d)`` to ``(n, heads * d, h, w)``."""
    return rearrange(windows, "(n y x) heads (a b) d -> n (heads d) (y a) (x b)", y=h // size, x=w // size, a=size)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, scale: Optional[float] = None
) -> torch.Tensor:
    """Return softmax(scale q k^T + bias) v.

    Args:
        q: Queries ``(m, heads, tokens, d)``; ``k`` and ``v`` likewise.
        bias: Added to the logits, ``(heads, tokens, tokens)`` or ``(m, heads, tokens, tokens)``.
        scale: Of the products; 1/sqrt(d) if left out.
    """
    bias = bias.to(q.dtype)  # autocast leaves the parameters behind the bias in float32
    if scale is not None:  # torch 2.0 has no `scale` and always takes 1/sqrt(d)
        q = q * (scale * q.shape[-1] ** 0.5)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias if bias.dim() == 4 else bias[None])


def clamped_index(side: int, bound: int) -> torch.Tensor:
    """Return for each pair of tokens of a ``side`` x ``side`` grid its row in a table of (2 bound - 1)^2 offsets.

    Offsets of ``bound`` and more share the outermost rows. Shape ``(side^2, side^2)``, query first.
    """
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    grid = torch.stack([rows.flatten(), columns.flatten()])
    offsets = (grid[:, :, None] - grid[:, None, :]).clamp(1 - bound, bound - 1) + bound - 1
    return offsets[0] * (2 * bound - 1) + offsets[1]
