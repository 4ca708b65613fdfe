"""DehazeFormer: window attention on reflected borders and a norm that can be undone (arXiv 2204.03883, TIP 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from basicsr_plugins.archs._dehazeformer_blocks import Block, BlockGroup, ConvType, Projection, SKFusion, window_pads
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.presets import with_presets
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple
from basicsr_plugins.core.registration import provides

__all__ = ["DehazeFormer"]

_NARROW, _WIDE = [24, 48, 96, 48, 24], [48, 96, 192, 96, 48]
_SHARES = [1 / 4, 1 / 2, 3 / 4, 0, 0]


def _variant(dims: list[int], depths: list[int], conv: str = "DWConv", shares: list[float] = _SHARES) -> dict:
    return {
        "embed_dims": dims, "mlp_ratios": [2.0, 4.0, 4.0, 2.0, 2.0], "depths": depths, "num_heads": [2, 4, 6, 1, 1],
        "attn_ratio": shares, "conv_type": [conv] * 5,
    }  # fmt: skip


PRESETS = {
    "T": _variant(_NARROW, [4, 4, 4, 2, 2], shares=[0, 1 / 2, 1, 0, 0]),
    "S": _variant(_NARROW, [8, 8, 8, 4, 4]),
    "B": _variant(_NARROW, [16, 16, 16, 8, 8]),
    "D": _variant(_NARROW, [32, 32, 32, 16, 16]),
    "W": _variant(_WIDE, [16, 16, 16, 8, 8]),
    "M": _variant(_NARROW, [12, 12, 12, 6, 6], "Conv"),
    "L": _variant(_WIDE, [16, 16, 16, 12, 12], "Conv"),
    # ours, for CPUs and tests
    "tiny": _variant([8, 16, 24, 16, 8], [1, 2, 2, 1, 1], shares=[0, 1 / 2, 1, 0, 0]),
}


@provides("arch")
@with_presets(PRESETS)
class DehazeFormer(HubNetwork):
    """DehazeFormer (arXiv 2204.03883), keys, shapes and results as published, any input size.

    Images below the smallest size that the published network takes (25 pixels) are enlarged by reflection.

    Args:
        in_chans: Input channels.
        out_chans: 4: one channel K and three channels B of the output K x - B + x.
        window_size: Side of the attention windows.
        embed_dims: Widths of the five stages; the last two mirror the first two.
        mlp_ratios: Widths of the MLPs as multiples of the stage's.
        depths: Blocks per stage.
        num_heads: Attention heads per stage.
        attn_ratio: Share of a stage's blocks with attention; they come last.
        conv_type: ``DWConv``, ``Conv`` or ~ per stage; ~ only where every block has attention.
        unit_range: Take and return RGB in [0, 1] and convert here. False as published: [-1, 1] in and out.
        use_checkpoint: Recompute blocks in the backward pass to save memory.
        preset: A published variant by name (T, S, B, D, W, M, L), or ``tiny``.

    Shapes: ``(n, in_chans, h, w)`` to ``(n, 3, h, w)``, not clamped.

    Raises:
        OptionError: Arguments that do not fit together.

    Example:
        network_g: {type: DehazeFormer, preset: B, unit_range: true}
    """

    #: The second half of the network, finest first. Ours: no paper taps DehazeFormer.
    feature_layers: tuple[str, ...] = ("layer5", "layer4", "layer3")

    def __init__(
        self,
        in_chans: int = 3,
        out_chans: int = 4,
        window_size: int = 8,
        embed_dims: Sequence[int] = (24, 48, 96, 48, 24),
        mlp_ratios: Sequence[float] = (2.0, 4.0, 4.0, 2.0, 2.0),
        depths: Sequence[int] = (16, 16, 16, 8, 8),
        num_heads: Sequence[int] = (2, 4, 6, 1, 1),
        attn_ratio: Sequence[float] = (1 / 4, 1 / 2, 3 / 4, 0, 0),
        conv_type: Sequence[ConvType] = ("DWConv",) * 5,
        unit_range: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        _check(in_chans, out_chans, window_size, embed_dims, mlp_ratios, depths, num_heads, attn_ratio, conv_type)
        self.unit_range = unit_range
        self.smallest = smallest_side(window_size, depths, attn_ratio, conv_type)

        def group(stage: int) -> BlockGroup:
            dim, count = embed_dims[stage], depths[stage]
            return BlockGroup(
                [
                    Block(
                        dim, num_heads[stage], mlp_ratios[stage], window_size, window_size // 2 if index % 2 else 0,
                        has_attention(index, count, attn_ratio[stage]), conv_type[stage], sum(depths),
                    )
                    for index in range(count)
                ],
                use_checkpoint,
            )  # fmt: skip

        d0, d1, d2, d3, d4 = embed_dims
        self.patch_embed = Projection(nn.Conv2d(in_chans, d0, 3, padding=1, padding_mode="reflect"))
        self.layer1 = group(0)
        self.patch_merge1 = Projection(nn.Conv2d(d0, d1, 2, stride=2))
        self.skip1 = nn.Conv2d(d0, d0, 1)
        self.layer2 = group(1)
        self.patch_merge2 = Projection(nn.Conv2d(d1, d2, 2, stride=2))
        self.skip2 = nn.Conv2d(d1, d1, 1)
        self.layer3 = group(2)
        self.patch_split1 = Projection(nn.Sequential(nn.Conv2d(d2, d3 * 4, 1), nn.PixelShuffle(2)))
        self.fusion1 = SKFusion(d3)
        self.layer4 = group(3)
        self.patch_split2 = Projection(nn.Sequential(nn.Conv2d(d3, d4 * 4, 1), nn.PixelShuffle(2)))
        self.fusion2 = SKFusion(d4)
        self.layer5 = group(4)
        self.patch_unembed = Projection(
            nn.Sequential(nn.Conv2d(d4, out_chans, 3, padding=1, padding_mode="reflect"))
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Dehaze ``x`` of ``(n, in_chans, h, w)``."""
        h, w = x.shape[-2:]
        if self.unit_range:
            x = x * 2 - 1
        x = pad_to_multiple(x, 4, at_least=self.smallest)
        f1 = self.layer1(self.patch_embed(x))
        f2 = self.layer2(self.patch_merge1(f1))
        f = self.patch_split1(self.layer3(self.patch_merge2(f2)))
        f = self.layer4(self.fusion1(f, self.skip2(f2)) + f)
        f = self.patch_split2(f)
        f = self.layer5(self.fusion2(f, self.skip1(f1)) + f)
        slope_and_offset = self.patch_unembed(f)
        slope, offset = slope_and_offset[:, :1], slope_and_offset[:, 1:]
        out = crop_to(slope * x - offset + x, h, w).contiguous()
        return out * 0.5 + 0.5 if self.unit_range else out


def has_attention(index: int, depth: int, share: float) -> bool:
    """Return whether block ``index`` of a stage of ``depth`` blocks has attention: the last ``share`` of them do."""
    return index >= depth - share * depth


def smallest_side(
    window_size: int, depths: Sequence[int], attn_ratio: Sequence[float], conv_type: Sequence[ConvType]
) -> int:
    """Return the multiple of 4 from which on every reflection of the network is shorter than the map it reflects."""

    def legal(side: int) -> bool:
        for depth, share, conv, level in zip(depths, attn_ratio, conv_type, (1, 2, 4, 2, 1)):
            size = side // level
            pads = [0] if conv is None or not depth else [2 if conv == "DWConv" else 1]
            for index in range(depth):
                if has_attention(index, depth, share):
                    pads.extend(window_pads(size, window_size, window_size // 2 if index % 2 else 0))
            if max(pads) >= size:
                return False
        return True

    side = 8 * window_size + 16  # more than twice a window at the coarsest stage: always legal
    while side > 4 and legal(side - 4):
        side -= 4
    return side


def _check(
    in_chans: int, out_chans: int, window_size: int, embed_dims: Sequence[int], mlp_ratios: Sequence[float],
    depths: Sequence[int], num_heads: Sequence[int], attn_ratio: Sequence[float], conv_type: Sequence[ConvType],
) -> None:  # fmt: skip
    lists = {
        "embed_dims": embed_dims, "mlp_ratios": mlp_ratios, "depths": depths, "num_heads": num_heads,
        "attn_ratio": attn_ratio, "conv_type": conv_type,
    }  # fmt: skip
    for name, values in lists.items():
        if len(values) != 5:
            raise OptionError(f"{name}: one value per stage, five in all, got {list(values)}.")
    if embed_dims[0] != embed_dims[4] or embed_dims[1] != embed_dims[3]:
        raise OptionError(f"embed_dims: the last two must mirror the first two, got {list(embed_dims)}.")
    if out_chans != 4 or in_chans not in (1, 3):
        raise OptionError(f"out_chans must be 4 and in_chans 3 (or 1), got {out_chans} and {in_chans}.")
    if window_size < 2:
        raise OptionError(f"window_size: 2 or more, got {window_size}.")
    for dim, heads, depth, share, conv in zip(embed_dims, num_heads, depths, attn_ratio, conv_type):
        attending = [has_attention(index, depth, share) for index in range(depth)]
        if conv not in ("DWConv", "Conv", None):
            raise OptionError(f"conv_type: DWConv, Conv or ~, got {conv!r}.")
        if conv is None and not all(attending):
            raise OptionError("conv_type: ~ needs attention in every block of its stage (attn_ratio 1).")
        if any(attending) and dim % heads:
            raise OptionError(f"embed_dims: {dim} channels do not split into {heads} heads.")
