"""The blocks of IDT; names are those of the published keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs.layers import GELU, DropPath, Stage
from basicsr_plugins.archs.windows import attend, clamped_index

__all__ = ["PATCH", "BlockGroup", "CrossBlock", "Proj", "WindowBlock"]

PATCH = 8  # side of the patches that cross attention compares, fixed in the published network


class QKVP(nn.Module):
    """Linear maps to queries, and to keys, values and what the position branch sees."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_kv = nn.Linear(dim, dim * 3, bias=bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return q, k, v and p, ``(m, tokens, dim)`` each."""
        return (self.to_q(x), *self.to_kv(x).chunk(3, dim=-1))


class Attention(nn.Module):
    """Attention on a grid of tokens, plus convolutions of the values' twin that carry the position.

    Args:
        dim: Width of a token.
        side: Side of the grid.
        heads: Attention heads.
        bound: Offsets are clamped below this in the table of position biases.
        qkv_bias: Biases of the linear maps.
        qk_scale: Of the products; 1/sqrt(dim / heads) if left out.
    """

    position_index: torch.Tensor

    def __init__(
        self, dim: int, side: int, heads: int, bound: int, qkv_bias: bool = True, qk_scale: Optional[float] = None
    ) -> None:  # fmt: skip
        super().__init__()
        self.side = side
        self.heads = heads
        self.scale = qk_scale
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * bound - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("position_index", clamped_index(side, bound), persistent=False)
        reach = min(side - 1, 2)
        self.Position_Extract = nn.Sequential(
            nn.Conv2d(dim, dim, 2 * reach + 1, padding=reach, groups=dim), nn.Conv2d(dim, dim, 1, groups=heads)
        )
        self.qkv = QKVP(dim, qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Attend in ``(m, side^2, dim)``; ``mask`` ``(windows, 1, side^2, side^2)`` is added to the logits."""
        q, k, v, p = self.qkv(x)
        bias = self.relative_position_bias_table[self.position_index].permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        out = attend(q, k, v, bias, self.scale).transpose(1, 2).flatten(2)
        position = self.Position_Extract(p.transpose(1, 2).unflatten(2, (self.side, self.side)))
        return self.proj(out + position.flatten(2).transpose(1, 2))


class LeFF(nn.Module):
    """Linear, depth-wise 3x3 with a residual, linear; GELU after the first two.

    Args:
        dim: Width of a token.
        hidden: Inner width.
        side: Side of the map that the tokens form.
    """

    def __init__(self, dim: int, hidden: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.linear1 = nn.Sequential(nn.Linear(dim, hidden), GELU())
        self.dwconv = nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), GELU())
        self.linear2 = nn.Sequential(nn.Linear(hidden, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``(n, side^2, dim)``."""
        u = self.linear1(x).transpose(1, 2).unflatten(2, (self.side, self.side))
        u = self.dwconv(u) + u
        return self.linear2(u.flatten(2).transpose(1, 2))


class WindowBlock(nn.Module):
    """Attention inside windows, then LeFF, each after a norm and with a residual."""

    def __init__(
        self, dim: int, side: int, heads: int, window: int, mlp_ratio: float, drop: float, qkv_bias: bool,
        qk_scale: Optional[float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.side = side
        self.window = min(side, window)
        self.norm1 = nn.LayerNorm(dim)
        # the bias table is that of a full window even where the map is smaller
        self.attn = Attention(dim, self.window, heads, window, qkv_bias, qk_scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = LeFF(dim, int(dim * mlp_ratio), side)
        self.drop_path = DropPath(drop)

    def forward(self, x: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Transform ``(n, side^2, dim)``; ``mask`` is ``(n, side^2, 1)`` or None."""
        y = self.attn(_windows(self.norm1(x), self.side, self.window), self._window_mask(mask))
        x = x + self.drop_path(_unwindows(y, self.side, self.window))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _window_mask(self, mask: Optional[torch.Tensor]) -> Optional[torch.Tensor]:
        if mask is None:
            return None
        inside = _windows(mask, self.side, self.window).squeeze(-1)
        pairs = inside[:, None, :, None] * inside[:, None, None, :]
        return torch.zeros_like(pairs).masked_fill(pairs != 0, -100.0)


class CrossBlock(nn.Module):
    """Attention between the 8x8 patches of each channel, then LeFF.

    As published, what the attention returns stays in patch order and is added to the map in raster order.
    """

    def __init__(
        self, dim: int, side: int, heads: int, bound: int, mlp_ratio: float, drop: float, qkv_bias: bool,
        qk_scale: Optional[float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.side = side
        self.attn = Attention(PATCH * PATCH, side // PATCH, heads, bound, qkv_bias, qk_scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = LeFF(dim, int(PATCH * PATCH * mlp_ratio), side)
        self.drop_path = DropPath(drop)

    def forward(self, x: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Transform ``(n, side^2, dim)``; ``mask`` is ignored, as published."""
        dim, count = x.shape[-1], self.side // PATCH
        patches = x.view(-1, count, PATCH, count, PATCH, dim).permute(0, 5, 1, 3, 2, 4)
        out = self.attn(patches.reshape(-1, count**2, PATCH * PATCH))
        x = x + self.drop_path(out.reshape(-1, dim, self.side**2).transpose(1, 2))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BlockGroup(nn.Module):
    """The blocks of one stage, on maps; the published keys have a level ``blocks`` in between."""

    def __init__(self, blocks: Sequence[nn.Module], side: int, use_checkpoint: bool) -> None:
        super().__init__()
        self.side = side
        self.blocks = Stage(*blocks, use_checkpoint=use_checkpoint)

    def forward(self, x: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, side, side)``; ``mask`` is ``(n, 1, h, w)`` or None."""
        if mask is not None:
            mask = F.interpolate(mask, (self.side, self.side)).flatten(2).transpose(1, 2)
        x = self.blocks(x.flatten(2).transpose(1, 2), mask)
        return x.transpose(1, 2).unflatten(2, (self.side, self.side))


class Proj(nn.Module):
    """A 3x3 convolution under the name ``proj``, and what comes after it."""

    def __init__(self, in_channels: int, out_channels: int, *after: nn.Module) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), *after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        return self.proj(x)


def _windows(x: torch.Tensor, side: int, window: int) -> torch.Tensor:
    count, dim = side // window, x.shape[-1]
    x = x.view(-1, count, window, count, window, dim).transpose(2, 3)
    return x.reshape(-1, window * window, dim)


def _unwindows(x: torch.Tensor, side: int, window: int) -> torch.Tensor:
    count, dim = side // window, x.shape[-1]
    return x.view(-1, count, count, window, window, dim).transpose(2, 3).reshape(-1, side * side, dim)
