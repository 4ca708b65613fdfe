"""Encoder and decoder of the VQGAN, block by block; names are those of the public checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, cast

import torch
from torch import nn
from torch.nn import functional as F

from basicsr_plugins.core.errors import OptionError, one_of
from basicsr_plugins.core.options import fraction, option, parse, positive

__all__ = ["AttentionBlock", "AutoEncoderSizes", "Decoder", "Encoder", "ResidualBlock"]

GROUPS = 32


@dataclass(frozen=True)
class AutoEncoderSizes:
    """``ddconfig`` of the public configuration files."""

    z_channels: int = option(help="channels of the latent", check=positive)
    resolution: int = option(help="nominal side of a training image; decides where attention goes", check=positive)
    ch: int = option(help="base width", check=positive)
    ch_mult: tuple[int, ...] = option(help="width of each level, in multiples of ch")
    num_res_blocks: int = option(help="residual blocks on each level of the encoder", check=positive)
    attn_resolutions: tuple[int, ...] = option(help="nominal resolutions with attention")
    in_channels: int = option(3, "channels of the input", check=positive)
    out_ch: int = option(3, "channels of the output", check=positive)
    dropout: float = option(0.0, "dropout inside residual blocks", check=fraction)
    double_z: bool = option(False, "belongs to the Gaussian auto-encoder; must be false")

    @property
    def widths(self) -> list[int]:
        """Channels of each level, finest first."""
        return [self.ch * multiple for multiple in self.ch_mult]

    def attends(self, level: int) -> bool:
        """Whether blocks of this level are followed by attention: by the nominal size, not by the input's."""
        return self.resolution // 2**level in self.attn_resolutions

    @classmethod
    def checked(cls, ddconfig: Mapping[str, Any], where: str) -> AutoEncoderSizes:
        """Return the sizes in ``ddconfig``, or say which of them cannot be built.

        Raises:
            OptionError: An unknown or missing key, a wrong type, or sizes that do not go together.
        """
        sizes = parse(cls, ddconfig, where)
        if sizes.double_z:
            raise OptionError(f"{where}.double_z: true belongs to the Gaussian auto-encoder (KL); a VQGAN has false.")
        if not sizes.ch_mult or min(sizes.ch_mult) < 1:
            raise OptionError(f"{where}.ch_mult: needs one whole number above 0 a level, got {sizes.ch_mult}.")
        for width in (sizes.ch, *sizes.widths):
            if width % GROUPS:
                raise OptionError(f"{where}.ch: widths must be multiples of {GROUPS} (GroupNorm), got {width}.")
        nominal = [sizes.resolution // 2**level for level in range(len(sizes.ch_mult))]
        for resolution in sizes.attn_resolutions:
            if resolution not in nominal:  # would silently build a network without attention
                raise OptionError(f"{where}.attn_resolutions: {one_of(resolution, nominal, 'resolution')}")
        return sizes


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation as used throughout: 32 groups, eps 1e-6."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def conv3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """3 x 3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class ResidualBlock(nn.Module):
    """x + conv2(dropout(swish(norm2(conv1(swish(norm1(x))))))), with a 1 x 1 shortcut where the width changes."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = conv3(channels_in, channels_out)
        self.norm2 = group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3(channels_out, channels_out)
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels_in, h, w) -> (n, channels_out, h, w)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + hidden


class AttentionBlock(nn.Module):
    """x + proj_out(attention over all positions), one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) -> the same shape."""
        normed = self.norm(x)
        # (n, 1 head, positions, c): the default scale of the fused kernel is c^(-1/2), which is what is wanted
        query, key, value = (
            layer(normed).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halve the sides: 3 x 3 convolution of stride 2 after padding one column right and one row below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) -> (n, c, h / 2, w / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the sides by repetition, then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) -> (n, c, 2 h, 2 w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution; ``attn`` is empty where the resolution has no attention."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, attention: bool, dropout: float) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.block = nn.ModuleList(ResidualBlock(before, after, dropout) for before, after in zip(widths, widths[1:]))
        self.attn = nn.ModuleList(AttentionBlock(channels_out) for _ in range(blocks if attention else 0))
        self.downsample: Optional[nn.Module] = None  # set by the encoder, all levels but the last
        self.upsample: Optional[nn.Module] = None  # set by the decoder, all levels but the finest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels_in, h, w) -> (n, channels_out, h, w)."""
        for number, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[number](x)
        return x


class Middle(nn.Module):
    """Residual, attention, residual at the coarsest resolution."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, dropout)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels, channels, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) -> the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Images to features of ``z_channels``, smaller by f = 2^(levels - 1)."""

    def __init__(self, sizes: AutoEncoderSizes) -> None:
        super().__init__()
        widths = sizes.widths
        self.conv_in = conv3(sizes.in_channels, sizes.ch)
        self.down = nn.ModuleList()
        for index, (before, width) in enumerate(zip([sizes.ch, *widths], widths)):
            level = Level(before, width, sizes.num_res_blocks, sizes.attends(index), sizes.dropout)
            if index < len(widths) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(widths[-1], sizes.dropout)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3(widths[-1], sizes.z_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, in_channels, h, w) -> (n, z_channels, h / f, w / f)."""
        x = self.conv_in(images)
        for level in cast(Iterable[Level], self.down):
            x = level(x)
            x = level.downsample(x) if level.downsample is not None else x
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Features back to images, with one residual block more on each level than the encoder has."""

    def __init__(self, sizes: AutoEncoderSizes) -> None:
        super().__init__()
        widths = sizes.widths
        self.conv_in = conv3(sizes.z_channels, widths[-1])
        self.mid = Middle(widths[-1], sizes.dropout)
        self.up = nn.ModuleList()  # finest level first, run through backwards
        for index, (width, before) in enumerate(zip(widths, [*widths[1:], widths[-1]])):
            level = Level(before, width, sizes.num_res_blocks + 1, sizes.attends(index), sizes.dropout)
            if index > 0:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = group_norm(widths[0])
        self.conv_out = conv3(widths[0], sizes.out_ch)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, z_channels, h / f, w / f) -> (n, out_ch, h, w)."""
        x = self.mid(self.conv_in(features))
        for level in reversed(cast(Sequence[Level], self.up)):
            x = level(x)
            x = level.upsample(x) if level.upsample is not None else x
        return self.conv_out(F.silu(self.norm_out(x)))
