"""The blocks of DehazeFormer; names are those of the published keys."""

from __future__ import annotations

import math
from typing import Literal, Optional, cast

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs.layers import Stage, add_product
from basicsr_plugins.archs.windows import attend, merge_windows, split_windows

__all__ = ["Block", "BlockGroup", "ConvType", "Projection", "SKFusion", "window_pads"]

ConvType = Optional[Literal["DWConv", "Conv"]]


class RescaleLayerNorm(nn.Module):
    """Normalise an image over channels and pixels at once, and say how to undo it ("RescaleNorm", Sec. 3.2).

    Args:
        channels: Number of channels.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.meta1 = nn.Conv2d(1, channels, 1)
        self.meta2 = nn.Conv2d(1, channels, 1)
        for meta, start in ((self.meta1, 1.0), (self.meta2, 0.0)):
            nn.init.trunc_normal_(meta.weight, std=0.02)
            nn.init.constant_(bias_of(meta), start)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the normalised ``(n, c, h, w)``, and ``(n, c, 1, 1)`` each to multiply with and to add afterwards."""
        variance, mean = torch.var_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
        deviation = torch.sqrt(variance + self.eps)
        slope = self.weight / deviation
        normed = add_product(self.bias - mean * slope, x, slope)
        return normed, self.meta1(deviation), self.meta2(mean)


class WindowAttention(nn.Module):
    """Attention inside windows with a position bias that a small network makes from logarithmic offsets.

    Args:
        heads: Attention heads.
        window_size: Side of a window.
    """

    def __init__(self, heads: int, window_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.window_size = window_size
        self.register_buffer("relative_positions", log_offsets(window_size))
        self.meta = nn.Sequential(nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, heads))

    def forward(self, qkv: torch.Tensor) -> torch.Tensor:
        """Attend in ``(n, 3c, h, w)``, sides multiples of the window; queries, keys, values ``c`` channels each."""
        h, w = qkv.shape[-2:]
        q, k, v = split_windows(qkv, self.window_size, 3 * self.heads).chunk(3, dim=1)
        bias = self.meta(self.relative_positions).permute(2, 0, 1)
        return merge_windows(attend(q, k, v, bias), self.window_size, h, w)


class Attention(nn.Module):
    """A local convolution, window attention, or both.

    Args:
        dim: Channels.
        heads: Attention heads.
        window_size: Side of a window.
        shift: How far the windows are moved to the left and up.
        use_attn: With attention.
        conv_type: ``DWConv`` (5x5 depth-wise), ``Conv`` (3x3, ReLU, 3x3) or none.
        depth: Blocks in the whole network, for the initialisation.
    """

    def __init__(
        self, dim: int, heads: int, window_size: int, shift: int, use_attn: bool, conv_type: ConvType, depth: int
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        self.use_attn = use_attn
        self.conv_type = conv_type
        self.conv: nn.Module
        if conv_type == "Conv":
            self.conv = nn.Sequential(_reflecting(dim, 3), nn.ReLU(), _reflecting(dim, 3))
        elif conv_type == "DWConv":
            self.conv = _reflecting(dim, 5, groups=dim)
        if conv_type == "DWConv" or use_attn:
            self.V = nn.Conv2d(dim, dim, 1)
            self.proj = nn.Conv2d(dim, dim, 1)
        if use_attn:
            self.QK = nn.Conv2d(dim, dim * 2, 1)
            self.attn = WindowAttention(heads, window_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init_conv(module, 1.0 if module.out_channels == dim * 2 else (8 * depth) ** -0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        if not self.use_attn:
            return self.proj(self.conv(self.V(x))) if self.conv_type == "DWConv" else self.conv(x)
        h, w = x.shape[-2:]
        v = self.V(x)
        qkv = torch.cat([self.QK(x), v], 1)
        left, right = window_pads(w, self.window_size, self.shift)
        top, bottom = window_pads(h, self.window_size, self.shift)
        qkv = F.pad(qkv, (left, right, top, bottom), mode="reflect")
        out = self.attn(qkv)[..., top : top + h, left : left + w]
        return self.proj(out if self.conv_type is None else self.conv(v) + out)


class Mlp(nn.Module):
    """1x1, ReLU, 1x1."""

    def __init__(self, dim: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, dim, 1))
        for conv in self.mlp:
            if isinstance(conv, nn.Conv2d):
                _init_conv(conv, (8 * depth) ** -0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        return self.mlp(x)


class Block(nn.Module):
    """Attention, normalised and rescaled, or a plain local convolution; then an MLP. Residuals around both."""

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float, window_size: int, shift: int, use_attn: bool, conv_type: ConvType,
        depth: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = RescaleLayerNorm(dim) if use_attn else None
        self.attn = Attention(dim, heads, window_size, shift, use_attn, conv_type, depth)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), depth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        if self.norm1 is None:
            x = x + self.attn(x)
        else:
            normed, rescale, rebias = self.norm1(x)
            x = x + add_product(rebias, self.attn(normed), rescale)
        return x + self.mlp(x)


class BlockGroup(nn.Module):
    """The blocks of one stage; the published keys have a level ``blocks`` in between."""

    def __init__(self, blocks: list[Block], use_checkpoint: bool) -> None:
        super().__init__()
        self.blocks = Stage(*blocks, use_checkpoint=use_checkpoint)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the blocks on ``x`` of ``(n, c, h, w)``."""
        return self.blocks(x)


class Projection(nn.Module):
    """Any layer under the name ``proj``, as the published keys of the resampling layers want it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.proj = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        return self.proj(x)


class SKFusion(nn.Module):
    """Add two maps with channel weights that sum to one, decided by the global mean of their sum."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(dim // 8, 4)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, dim * 2, 1, bias=False)
        )

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Fuse two ``(n, c, h, w)``."""
        mean = (first + second).mean(dim=(-2, -1), keepdim=True)
        # a softmax over two values is a sigmoid of their difference
        logits = self.mlp(mean).chunk(2, dim=1)
        return torch.lerp(second, first, (logits[0] - logits[1]).sigmoid())


def log_offsets(window_size: int) -> torch.Tensor:
    """Return sign(d) ln(1 + |d|) of the row and column offsets of all token pairs: ``(w^2, w^2, 2)``, query first."""
    rows, columns = torch.meshgrid(torch.arange(window_size), torch.arange(window_size), indexing="ij")
    grid = torch.stack([rows.flatten(), columns.flatten()], dim=-1)
    offsets = (grid[:, None] - grid[None]).float()
    return offsets.sign() * torch.log(1 + offsets.abs())


def window_pads(side: int, window_size: int, shift: int) -> tuple[int, int]:
    """Return what is reflected before and after ``side`` so that windows moved by ``shift`` cover it."""
    rest = -side % window_size
    return (shift, (window_size - shift + rest) % window_size) if shift else (0, rest)


def _reflecting(dim: int, kernel: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=groups, padding_mode="reflect")


def bias_of(conv: nn.Conv2d) -> torch.Tensor:
    """Return the bias of a convolution that was built with one."""
    return cast(torch.Tensor, conv.bias)


def _init_conv(conv: nn.Conv2d, gain: float) -> None:
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(conv.weight)
    nn.init.trunc_normal_(conv.weight, std=gain * math.sqrt(2.0 / (fan_in + fan_out)))
    nn.init.zeros_(bias_of(conv))
