"""IDT, the image deraining transformer: attention inside windows and between windows (TPAMI 2022)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs._idt_blocks import PATCH, BlockGroup, CrossBlock, Proj, WindowBlock
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.layers import at_least_float32
from basicsr_plugins.archs.presets import with_presets
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple
from basicsr_plugins.core.registration import provides

__all__ = ["IDT"]

PRESETS: dict[str, dict[str, Any]] = {
    "published": {"img_size": 128, "depths": [3, 3, 2, 2, 1, 1, 2, 2, 3]},
    # ours, for small GPUs, and for CPUs and tests
    "small": {"img_size": 64, "embed_dim": 16},
    "tiny": {"img_size": 64, "embed_dim": 8, "num_heads": [1, 1, 2, 2, 2, 2, 2, 1, 1], "overlap": 8},
}

#: Window blocks, clamp of the cross block's offsets (None: no cross block) and size divisor of the nine stages.
ENCODER = ((3, 16, 1), (3, 8, 2), (2, 4, 4), (2, 2, 8))
BOTTLE = (1, None, 16)
DECODER = ((1, 2, 8), (2, 4, 4), (2, 8, 2), (3, 16, 1))


@provides("arch")
@with_presets(PRESETS)
class IDT(HubNetwork):
    """IDT (Xiao et al., TPAMI 2022), keys, shapes and results as published, any input size.

    The network itself takes squares of ``img_size`` only. Anything else is cut into such tiles with overlap, which are
    averaged with the published weights (nearer to a tile's centre counts more); smaller images are reflected.

    Args:
        img_size: Side of the squares, a multiple of 64; 128 in the published checkpoints.
        in_chans: Channels of the input and of the output.
        embed_dim: Width of the first stage.
        depths: Nine numbers that only spread the stochastic depth over the stages; the blocks are fixed.
        num_heads: Attention heads of the nine stages.
        win_size: Side of the windows.
        mlp_ratio: Inner width of the feed-forward part.
        qkv_bias: Biases of queries, keys and values.
        qk_scale: Of the attention products; 1/sqrt(width of a head) if left out.
        drop_path_rate: Stochastic depth at the deepest stage.
        use_checkpoint: Recompute blocks in the backward pass to save memory.
        overlap: Overlap of the tiles in pixels; the published script takes 20.
        preset: A variant by name, see ``IDT.presets``.

    Shapes: ``(n, in_chans, h, w)`` in [0, 1] to the same, not clamped.

    Raises:
        OptionError: Arguments that do not fit together.

    Example:
        network_g: {type: IDT, preset: published}
    """

    #: The second half of the network, finest first. Ours: no paper taps IDT.
    feature_layers: tuple[str, ...] = ("decoderlayer_3", "decoderlayer_2", "decoderlayer_1", "decoderlayer_0")

    def __init__(
        self,
        img_size: int = 128,
        in_chans: int = 3,
        embed_dim: int = 32,
        depths: Sequence[int] = (2,) * 9,
        num_heads: Sequence[int] = (1, 2, 4, 8, 16, 16, 8, 4, 2),
        win_size: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: Optional[float] = None,
        drop_path_rate: float = 0.1,
        use_checkpoint: bool = False,
        overlap: int = 20,
    ) -> None:
        super().__init__()
        _check(img_size, embed_dim, depths, num_heads, win_size, overlap)
        self.img_size = img_size
        self.overlap = overlap
        self.tile_weight: torch.Tensor
        self.register_buffer("tile_weight", _tile_weight(img_size), persistent=False)
        encoder_drops, decoder_drops = _drop_rates(drop_path_rate, depths)

        def group(stage: tuple, dim: int, heads: int, drops: Sequence[float]) -> BlockGroup:
            count, bound, divisor = stage
            side = img_size // divisor
            shared = (qkv_bias, qk_scale)
            blocks: list[nn.Module] = [
                WindowBlock(dim, side, heads, win_size, mlp_ratio, drops[0], *shared) for _ in range(count)
            ]
            if bound is not None:
                blocks.append(CrossBlock(dim, side, heads, bound, mlp_ratio, drops[-1], *shared))
            return BlockGroup(blocks, side, use_checkpoint)

        e = embed_dim
        self.input_proj = Proj(in_chans, e, nn.LeakyReLU(0.01))
        self.output_proj = Proj(2 * e, in_chans)
        for i, stage in enumerate(ENCODER):
            setattr(self, f"encoderlayer_{i}", group(stage, e << i, num_heads[i], encoder_drops[i]))
            # the published keys spell it like this
            down = nn.Conv2d(e << i, e << (i + 1), 4, stride=2, padding=1)
            setattr(self, f"dowsample_{i}", nn.Sequential(OrderedDict(conv=nn.Sequential(down))))
        self.bottle = group(BOTTLE, 16 * e, num_heads[4], [drop_path_rate])
        for i, stage in enumerate(DECODER):
            up = nn.ConvTranspose2d(16 * e if i == 0 else 32 * e >> i, 8 * e >> i, 2, stride=2)
            setattr(self, f"upsample_{i}", nn.Sequential(OrderedDict(deconv=nn.Sequential(up))))
            setattr(self, f"decoderlayer_{i}", group(stage, 16 * e >> i, num_heads[5 + i], decoder_drops[i]))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Derain ``x`` of ``(n, in_chans, h, w)``.

        ``mask`` of ``(n, 1, h, w)`` keeps marked pixels from attending to each other (published, used by no script).
        """
        h, w = x.shape[-2:]
        size = self.img_size
        if torch.jit.is_tracing() and mask is None:
            return crop_to(self._restore_at_once(pad_to_multiple(x, 1, at_least=size)), h, w).contiguous()
        if (h, w) == (size, size):
            return self.restore_square(x, mask)
        if mask is not None:
            raise OptionError(f"mask: only for images of {size} x {size}, got {h} x {w}.")
        x = pad_to_multiple(x, 1, at_least=size)
        total, weights = torch.zeros_like(x), x.new_zeros(x.shape[-2:])
        for top in self._starts(x.shape[-2]):
            for left in self._starts(x.shape[-1]):
                tile = (..., slice(top, top + size), slice(left, left + size))
                total[tile] += self.restore_square(x[tile]) * self.tile_weight
                weights[tile] += self.tile_weight
        return crop_to(total / weights, h, w).contiguous()

    def _restore_at_once(self, x: torch.Tensor) -> torch.Tensor:
        """Do with one batch of all squares what ``forward`` does in loops, whose length a recording would fix."""
        rows, columns = self._places(x[0, 0, :, 0]), self._places(x[0, 0, 0])
        tiles = x[:, :, rows][..., columns].permute(2, 4, 0, 1, 3, 5)  # (down, across, n, c, size, size)
        restored = self.restore_square(tiles.flatten(0, 2)) * self.tile_weight
        weighed = at_least_float32(torch.cat([restored, restored[:, :1] * 0 + self.tile_weight], 1))
        parts = weighed.unflatten(0, tiles.shape[:3]).permute(2, 3, 0, 4, 1, 5)  # (n, c + 1, down, size, across, size)
        total = _sum_at(_sum_at(parts.flatten(4), columns).flatten(2, 3).transpose(2, 3), rows).transpose(2, 3)
        return (total[:, :-1] / total[:, -1:]).to(x.dtype)

    def _places(self, line: torch.Tensor) -> torch.Tensor:
        """Return the numbers of the pixels of each square along one line of the image, ``(squares, img_size)``."""
        step = self.img_size - self.overlap
        squares = (line.shape[0] - self.img_size + step - 1) // step + 1
        number = torch.ones_like(line, dtype=torch.long).cumsum(0) - 1  # on the device of the moment, unlike arange
        starts = torch.minimum(number[:squares] * step, number[-1:] - (self.img_size - 1))
        return starts[:, None] + number[: self.img_size]

    def restore_square(self, x: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Derain ``x`` of ``(n, in_chans, img_size, img_size)``."""
        y = self.input_proj(x)
        skips = []
        for i in range(len(ENCODER)):
            y = getattr(self, f"encoderlayer_{i}")(y, mask)
            skips.append(y)
            y = getattr(self, f"dowsample_{i}")(y)
        y = self.bottle(y, mask)
        for i in range(len(DECODER)):
            y = torch.cat([getattr(self, f"upsample_{i}")(y), skips.pop()], 1)
            y = getattr(self, f"decoderlayer_{i}")(y, mask)
        return (self.output_proj(y) + x).contiguous()

    def _starts(self, side: int) -> list[int]:
        last = side - self.img_size
        return [*range(0, last, self.img_size - self.overlap), last]


def _sum_at(parts: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Add up the last axis of ``parts`` by ``places``; the result is as long as the last place says."""
    index = places.flatten()
    more: Any = places[-1, -1]
    total = F.pad(parts[..., :1] * 0, (0, more))  # the ONNX exporter takes the size of zeros_like as fixed
    return total.scatter_add(-1, index.expand_as(parts), parts)


def _tile_weight(size: int) -> torch.Tensor:
    offsets = (torch.arange(size) - size / 2) ** 2
    return (offsets[:, None] + offsets[None, :] + 1e-3).rsqrt()


def _drop_rates(rate: float, depths: Sequence[int]) -> tuple[list[Sequence[float]], list[Sequence[float]]]:
    """Return the slices of the linear schedule that belong to the encoder's and to the decoder's stages."""
    steps = sum(depths[:4])
    encoder = [rate * step / max(steps - 1, 1) for step in range(steps)]
    decoder = encoder[::-1]

    def slices(values: list[float], lengths: Sequence[int]) -> list[Sequence[float]]:
        edges = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
        # a decoder deeper than the encoder runs off the schedule's end, where nothing is dropped
        return [values[start:stop] or [0.0] for start, stop in zip(edges, edges[1:])]

    return slices(encoder, depths[:4]), slices(decoder, depths[5:])


def _check(
    img_size: int, embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], win_size: int, overlap: int
) -> None:
    sides = [img_size // divisor for divisor in (1, 2, 4, 8, 16)]
    if (
        img_size < PATCH * 8
        or img_size % (PATCH * 8)
        or win_size < 2
        or any(side % min(win_size, side) for side in sides)
    ):
        raise OptionError(
            f"img_size: a multiple of {PATCH * 8} whose halves down to 1/16 are covered by windows of {win_size} "
            f"(64, 128, 256 for windows of 8), got {img_size}."
        )
    if len(depths) != 9 or len(num_heads) != 9:
        raise OptionError(f"depths and num_heads need nine values each, got {list(depths)} and {list(num_heads)}.")
    widths = [embed_dim * factor for factor in (1, 2, 4, 8, 16, 16, 8, 4, 2)]
    for stage, (width, heads) in enumerate(zip(widths, num_heads)):
        if width % heads or (stage != 4 and (PATCH * PATCH) % heads):
            raise OptionError(f"num_heads: stage {stage} is {width} wide and compares {PATCH**2} pixels, got {heads}.")
    if not 0 <= overlap < img_size:
        raise OptionError(f"overlap: 0 to {img_size - 1} pixels, got {overlap}.")
