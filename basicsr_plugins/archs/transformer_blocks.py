"""The blocks of Restormer, which PromptIR shares: channel attention, gated feed-forward, resampling by two.

Every block takes and returns ``(n, c, h, w)`` and works in either memory format.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs.convolutions import (
    is_plain_conv,
    mix_channels,
    pointwise,
    pointwise_then_depthwise,
    splits_early,
)
from basicsr_plugins.archs.layers import ChannelLayerNorm, Stage, at_least_float32
from basicsr_plugins.core.errors import OptionError

__all__ = [
    "BlockMaker",
    "Downsample",
    "GatedFeedForward",
    "PatchEmbed",
    "TransformerBlock",
    "TransposedAttention",
    "Upsample",
    "check_transformer",
]


class TransposedAttention(nn.Module):
    """Attention between channels ("MDTA", Restormer, arXiv 2111.09881, Eq. 1): a c x c map whatever the image size.

    Args:
        dim: Channels.
        heads: Heads; they split the channels.
        bias: Whether the three convolutions have biases.
        attention: ``softmax`` as published, or ``relu`` (DCPT's Restormer: no normalisation over the keys).
    """

    def __init__(self, dim: int, heads: int, bias: bool = False, attention: str = "softmax") -> None:
        super().__init__()
        self.heads = heads
        self.attention = attention
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend between the channels of ``x`` of ``(n, c, h, w)``."""
        q, k, v = pointwise_then_depthwise(self.qkv, self.qkv_dwconv, x, parts=3)
        logits = channel_similarity(q.flatten(2), k.flatten(2), self.heads) * self.temperature
        weights = (logits.softmax(dim=-1) if self.attention == "softmax" else logits.relu()).to(v.dtype)
        # mixing within the heads and projecting is one c x c matrix per image: one product over the pixels, not two
        if not is_plain_conv(self.project_out):
            return self.project_out(mix_channels(_block_diagonal(weights), v))
        project = self.project_out.weight.flatten(1).unflatten(1, (self.heads, -1))
        mixed = mix_channels(torch.einsum("ohc,nhcd->nohd", project, weights).flatten(2), v)
        return mixed if self.project_out.bias is None else mixed + self.project_out.bias[:, None, None]


def channel_similarity(q: torch.Tensor, k: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the cosines between the channels of ``q`` and ``k``, head by head: ``(n, heads, c / heads, c / heads)``.

    The small product is divided by the norms, rather than the large factors: two passes over the pixels less.

    Args:
        q: ``(n, c, pixels)``; ``k`` likewise.
        heads: The channels are split into so many groups.
    """
    if q.dtype == torch.float16:  # sums over pixels overflow
        q, k = F.normalize(q.float(), dim=-1).half(), F.normalize(k.float(), dim=-1).half()
        return (q.unflatten(1, (heads, -1)) @ k.unflatten(1, (heads, -1)).transpose(-2, -1)).float()
    # clamped before the root, which has no gradient at 0
    q_norm, k_norm = (at_least_float32((x * x).sum(-1)).clamp_min(1e-24).sqrt() for x in (q, k))
    similarity = q.unflatten(1, (heads, -1)) @ k.unflatten(1, (heads, -1)).transpose(-2, -1)
    norms = q_norm.unflatten(1, (heads, -1, 1)) * k_norm.unflatten(1, (heads, 1, -1))
    return similarity / norms


def _block_diagonal(weights: torch.Tensor) -> torch.Tensor:
    """Return ``(n, c, c)`` with the heads' ``(n, heads, d, d)`` along the diagonal."""
    n, heads, d, _ = weights.shape
    dense = weights.new_zeros(n, heads, d, heads, d)
    index = torch.arange(heads, device=weights.device)
    dense[:, index, :, index] = weights.transpose(0, 1)
    return dense.view(n, heads * d, heads * d)


class GatedFeedForward(nn.Module):
    """Two 1x1 + depth-wise 3x3 branches, one gating the other through GELU ("GDFN", arXiv 2111.09881, Eq. 2).

    Args:
        dim: Channels.
        expansion: Width of a branch as a multiple of ``dim`` (rounded down).
        bias: Whether the convolutions have biases.
    """

    def __init__(self, dim: int, expansion: float = 2.66, bias: bool = False) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        gate, value = pointwise_then_depthwise(self.project_in, self.dwconv, x, parts=2)
        if torch.is_grad_enabled() or not splits_early(x, self.project_in, self.dwconv):
            hidden = F.gelu(gate) * value
        else:  # both maps are ours alone and nothing will ask for them again
            hidden = torch.ops.aten.gelu_(gate).mul_(value)
        return pointwise(self.project_out, hidden)


class TransformerBlock(nn.Module):
    """Restormer's block: norm, transposed attention, norm, gated feed-forward, each with a residual.

    Args:
        dim: Channels.
        heads: Attention heads.
        expansion: Feed-forward expansion.
        bias: Biases of the block's convolutions.
        norm: ``WithBias`` or ``BiasFree``.
        attention: ``softmax`` or ``relu``.
        eps: Of the two norms.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        expansion: float = 2.66,
        bias: bool = False,
        norm: str = "WithBias",
        attention: str = "softmax",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = _named_body(ChannelLayerNorm(dim, eps, centred=norm == "WithBias"))
        self.attn = TransposedAttention(dim, heads, bias, attention)
        self.norm2 = _named_body(ChannelLayerNorm(dim, eps, centred=norm == "WithBias"))
        self.ffn = GatedFeedForward(dim, expansion, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Downsample(nn.Module):
    """3x3 convolution to half the channels, then pixel-unshuffle: ``(n, c, h, w)`` to ``(n, 2c, h/2, w/2)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Halve the sides of ``x``, which must be even."""
        return self.body(x)


class Upsample(nn.Module):
    """3x3 convolution to twice the channels, then pixel-shuffle: ``(n, c, h, w)`` to ``(n, c/2, 2h, 2w)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim * 2, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Double the sides of ``x``."""
        return self.body(x)


def _named_body(module: nn.Module) -> nn.Sequential:
    # the published state dicts say norm1.body.weight, so one more level is needed
    return nn.Sequential(OrderedDict(body=module))


class PatchEmbed(nn.Module):
    """The first 3x3 convolution, never with a bias."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed ``x`` of ``(n, in_channels, h, w)``."""
        return self.proj(x)


class BlockMaker:
    """Builds the stages of Restormer and PromptIR from the arguments that all their blocks share."""

    def __init__(
        self, heads: Sequence[int], expansion: float, bias: bool, norm: str, attention: str, eps: float,
        use_checkpoint: bool,
    ) -> None:  # fmt: skip
        self.heads = heads
        self.shared = (expansion, bias, norm, attention, eps)
        self.use_checkpoint = use_checkpoint

    def block(self, dim: int, level: int) -> TransformerBlock:
        """One block of width ``dim`` with the heads of ``level`` (0 to 3)."""
        return TransformerBlock(dim, self.heads[level], *self.shared)

    def stage(self, dim: int, level: int, blocks: int) -> Stage:
        """``blocks`` blocks in a row."""
        return Stage(*(self.block(dim, level) for _ in range(blocks)), use_checkpoint=self.use_checkpoint)


def check_transformer(dim: int, num_blocks: Sequence[int], heads: Sequence[int], norm: str, attention: str) -> None:
    """Check the arguments that Restormer and PromptIR share.

    Raises:
        OptionError: What does not fit, and what would.
    """
    if len(num_blocks) != 4 or len(heads) != 4:
        raise OptionError(f"num_blocks and heads need four values each, got {list(num_blocks)} and {list(heads)}.")
    widths = [dim, dim * 2, dim * 4, dim * 8]
    if dim < 2 or dim % 2 or any(width % head for width, head in zip(widths, heads)):
        raise OptionError(f"dim {dim} must be even, and the widths {widths} must be multiples of heads {list(heads)}.")
    if norm not in ("WithBias", "BiasFree"):
        raise OptionError(f"LayerNorm_type: WithBias or BiasFree, got {norm!r}.")
    if attention not in ("softmax", "relu"):
        raise OptionError(f"attention: softmax or relu, got {attention!r}.")
