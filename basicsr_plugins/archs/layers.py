"""Blocks that several networks share: channel LayerNorm, Restormer's transformer block, resampling by two.

Every block takes and returns ``(n, c, h, w)`` and works in either memory format. Nothing here moves pixels around for
the sake of a formula: a LayerNorm over channels is a LayerNorm over the last axis of a channels-last tensor.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "ChannelLayerNorm",
    "Downsample",
    "GatedFeedForward",
    "Stage",
    "TransformerBlock",
    "TransposedAttention",
    "Upsample",
    "simple_gate",
]


def simple_gate(x: torch.Tensor) -> torch.Tensor:
    """Return the first half of the channels times the second half (NAFNet, arXiv 2204.04676, Eq. 4)."""
    first, second = x.chunk(2, dim=1)
    return first * second


class ChannelLayerNorm(nn.Module):
    """LayerNorm of each pixel over its channels, with the biased variance.

    Args:
        channels: Number of channels.
        eps: Added to the variance.
        centred: Subtract the mean and add a bias. Without it (Restormer's "BiasFree") the input is only divided by the
            standard deviation, which is still that of the centred values.
    """

    def __init__(self, channels: int, eps: float = 1e-6, centred: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if centred else None
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``x`` of ``(n, c, h, w)``."""
        tokens = x.permute(0, 2, 3, 1)
        if self.bias is not None:
            tokens = F.layer_norm(tokens, self.weight.shape, self.weight, self.bias, self.eps)
        else:
            variance = tokens.var(dim=-1, correction=0, keepdim=True)
            tokens = tokens * torch.rsqrt(variance + self.eps) * self.weight
        return tokens.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}, centred={self.bias is not None}"


class Stage(nn.Sequential):
    """A run of blocks that may recompute each block in the backward pass instead of keeping its activations.

    Args:
        *blocks: The blocks, in order; their keys are ``0.``, ``1.`` ...
        use_checkpoint: Recompute (less memory, about a third more time). Hooks on the stage itself are unaffected.
    """

    def __init__(self, *blocks: nn.Module, use_checkpoint: bool = False) -> None:
        super().__init__(*blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the blocks one after another."""
        recompute = self.use_checkpoint and self.training and torch.is_grad_enabled()
        for block in self:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x


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
        h, w = x.shape[-2:]
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        q, k, v = (part.flatten(2).unflatten(1, (self.heads, -1)) for part in (q, k, v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = (q @ k.transpose(-2, -1)) * self.temperature
        weights = weights.softmax(dim=-1) if self.attention == "softmax" else weights.relu()
        return self.project_out((weights @ v).flatten(1, 2).unflatten(-1, (h, w)))


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
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


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


def init_conv_normal(network: nn.Module, std: Optional[float]) -> None:
    """Draw all convolution weights from a truncated normal of ``std`` and zero their biases; None leaves them alone."""
    if std is None:
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
