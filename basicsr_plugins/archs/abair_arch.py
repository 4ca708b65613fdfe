"""ABAIR's network: Restormer's backbone with spatial attention in its blocks and prompts in its decoder.

The paper (arXiv 2411.18412, section 3) says no more than that, and that it has 59 M parameters. The kind of spatial
attention, the widths and the prompts are ours; each choice is said where it is made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.layers import ChannelLayerNorm, Stage
from basicsr_plugins.archs.presets import with_presets
from basicsr_plugins.archs.promptir_arch import PromptGenerator
from basicsr_plugins.archs.transformer_blocks import (
    Downsample,
    GatedFeedForward,
    PatchEmbed,
    TransformerBlock,
    Upsample,
    check_transformer,
)
from basicsr_plugins.archs.windows import attend, merge_windows, split_windows
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple
from basicsr_plugins.core.registration import provides

__all__ = ["ABAIRNet"]

PRESETS = {
    "full": {},
    # ours, for small GPUs, and for CPUs and tests
    "small": {
        "dim": 24, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 2, "prompt_dims": [32, 64, 160],
        "prompt_sizes": [32, 16, 8],
    },
    "tiny": {
        "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4],
        "prompt_dims": [8, 16, 32], "prompt_sizes": [16, 8, 4],
    },
}  # fmt: skip


@provides("arch")
@with_presets(PRESETS)
class ABAIRNet(HubNetwork):
    """The baseline network of ABAIR (arXiv 2411.18412): 59.7 M parameters at full size.

    The segmentation head of phase I is no part of it: it is a network of its own (``SegmentationHead``) that reads
    ``feature_layers[0]``, so no checkpoint of this network ever holds it.

    Args:
        inp_channels: Image channels, in and out.
        dim: Width of the first level; the levels are dim, 2 dim, 4 dim and 8 dim wide. Restormer's.
        num_blocks: Blocks at levels 1, 2, 3 and at the latent level. Restormer's.
        num_refinement_blocks: Blocks after the last decoder level. Restormer's.
        heads: Heads of the four levels, of channel and spatial attention alike.
        ffn_expansion_factor: Expansion of the gated feed-forward parts. Restormer's.
        LayerNorm_type: ``WithBias`` or ``BiasFree``.
        window: Side of the windows of the spatial attention, in feature pixels (ours; not published).
        overlap: How far a window's keys reach beyond its queries, as a fraction of its side (ours; not published).
        prompt_dims: Width of the prompts at decoder levels 1, 2 and at the latent level (PromptIR's, as is their number
            of five a level).
        prompt_sizes: Their sides, in feature pixels (PromptIR's).
        use_checkpoint: Recompute blocks in the backward pass to save memory.
        preset: ``full``, ``small`` or ``tiny``.

    Shapes: ``(n, c, h, w)`` in [0, 1] to the same, not clamped; sides are padded to multiples of 8 and cropped again.

    Raises:
        OptionError: Arguments that do not fit together.

    Example:
        network_g: {type: ABAIRNet, preset: full}
    """

    #: Finest first; the segmentation head reads the first.
    feature_layers: tuple[str, ...] = ("refinement", "decoder_level1", "decoder_level2", "decoder_level3")
    multiple_of = 8
    #: Layers that get an adapter by default: 1x1 convolutions and linear layers, but for the second feed-forward part.
    #: Five rank-4 adapters then have 3.7 M parameters (published: 3.6 M; with that part they would have 5.2 M).
    adapter_layers = r"(?!.*\.spatial_ffn\.).*"

    def __init__(
        self,
        inp_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",
        window: int = 8,
        overlap: float = 0.5,
        prompt_dims: Sequence[int] = (64, 128, 320),
        prompt_sizes: Sequence[int] = (64, 32, 16),
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_transformer(dim, num_blocks, heads, LayerNorm_type, "softmax")
        if len(prompt_dims) != 3 or len(prompt_sizes) != 3:
            raise OptionError(
                f"prompt_dims and prompt_sizes need three values, got {list(prompt_dims)} and {list(prompt_sizes)}."
            )
        if window < 2 or window % 2 or not 0 <= overlap <= 2 or int(window * overlap) % 2:
            raise OptionError(
                "window must be even and window * overlap an even number of pixels, at most twice the window; got "
                f"window {window}, overlap {overlap}."
            )
        self.feature_layers = ABAIRNet.feature_layers

        def stage(width: int, level: int, blocks: int) -> Stage:
            norm = (ffn_expansion_factor, LayerNorm_type)
            made = [SpatialBlock(width, heads[level], *norm, window, overlap) for _ in range(blocks)]
            return Stage(*made, use_checkpoint=use_checkpoint)

        def prompt(width: int, level: int) -> PromptFusion:
            index = (0, 1, 1, 2)[level]
            block = TransformerBlock(
                width + prompt_dims[index], heads[level], ffn_expansion_factor, norm=LayerNorm_type
            )
            return PromptFusion(width, prompt_dims[index], prompt_sizes[index], block)

        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.encoder_level1 = stage(dim, 0, num_blocks[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = stage(dim * 2, 1, num_blocks[1])
        self.down2_3 = Downsample(dim * 2)
        self.encoder_level3 = stage(dim * 4, 2, num_blocks[2])
        self.down3_4 = Downsample(dim * 4)
        self.latent = stage(dim * 8, 3, num_blocks[3])
        self.prompt3 = prompt(dim * 8, 3)
        self.up4_3 = Upsample(dim * 8)
        self.reduce_chan_level3 = nn.Conv2d(dim * 8, dim * 4, 1, bias=False)
        self.decoder_level3 = stage(dim * 4, 2, num_blocks[2])
        self.prompt2 = prompt(dim * 4, 2)
        self.up3_2 = Upsample(dim * 4)
        self.reduce_chan_level2 = nn.Conv2d(dim * 4, dim * 2, 1, bias=False)
        self.decoder_level2 = stage(dim * 2, 1, num_blocks[1])
        self.prompt1 = prompt(dim * 2, 0)
        self.up2_1 = Upsample(dim * 2)
        self.decoder_level1 = stage(dim * 2, 0, num_blocks[0])
        self.refinement = stage(dim * 2, 0, num_refinement_blocks)
        self.output = nn.Conv2d(dim * 2, inp_channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Restore ``x`` of ``(n, c, h, w)``."""
        h, w = x.shape[-2:]
        image = pad_to_multiple(x, self.multiple_of)
        e1 = self.encoder_level1(self.patch_embed(image))
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        latent = self.prompt3(self.latent(self.down3_4(e3)))
        d3 = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(latent), e3], 1)))
        d2 = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(self.prompt2(d3)), e2], 1)))
        d1 = self.decoder_level1(torch.cat([self.up2_1(self.prompt1(d2)), e1], 1))
        return crop_to(self.output(self.refinement(d1)) + image, h, w).contiguous()


class SpatialBlock(TransformerBlock):
    """Restormer's block followed by spatial attention and a second feed-forward part, each with a residual.

    A second feed-forward part after the spatial attention is what brings the whole network near the published
    59 M parameters; without it there are 44.9 M.
    """

    def __init__(self, dim: int, heads: int, expansion: float, norm: str, window: int, overlap: float) -> None:
        super().__init__(dim, heads, expansion, norm=norm)
        centred = norm == "WithBias"
        self.norm3 = nn.Sequential(OrderedDict(body=ChannelLayerNorm(dim, 1e-5, centred)))
        self.spatial_attn = OverlappingAttention(dim, heads, window, overlap)
        self.norm4 = nn.Sequential(OrderedDict(body=ChannelLayerNorm(dim, 1e-5, centred)))
        self.spatial_ffn = GatedFeedForward(dim, expansion)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        x = super().forward(x)
        x = x + self.spatial_attn(self.norm3(x))
        return x + self.spatial_ffn(self.norm4(x))


class OverlappingAttention(nn.Module):
    """Attention between pixels: the queries of a window look at the keys of a larger window around it.

    Pixels outside the image have zero keys and values. Position enters as one learned bias per head and offset.

    Args:
        dim: Channels.
        heads: Heads; they split the channels.
        window: Side of a window of queries.
        overlap: How far the keys reach beyond it, both sides together, as a fraction of ``window``.
    """

    offsets: torch.Tensor

    def __init__(self, dim: int, heads: int, window: int = 8, overlap: float = 0.5) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.reach = window + int(window * overlap)
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)
        span = window + self.reach - 1
        self.position = nn.Parameter(torch.zeros(heads, span * span))
        self.register_buffer("offsets", _offsets(window, self.reach), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within ``x`` of ``(n, c, h, w)`` of any size."""
        h, w = x.shape[-2:]
        q, k, v = F.pad(self.qkv(x), (0, -w % self.window, 0, -h % self.window)).chunk(3, dim=1)
        size = q.shape[-2:]
        query = split_windows(q, self.window, self.heads)
        key, value = self._neighbourhoods(k), self._neighbourhoods(v)
        y = merge_windows(attend(query, key, value, self.position[:, self.offsets]), self.window, *size)
        return self.project_out(crop_to(y, h, w))

    def _neighbourhoods(self, x: torch.Tensor) -> torch.Tensor:
        """Return what surrounds each window, (n * windows, heads, reach^2, c / heads)."""
        n, c = x.shape[:2]
        patches = F.unfold(x, self.reach, stride=self.window, padding=(self.reach - self.window) // 2)
        patches = patches.view(n, self.heads, c // self.heads, self.reach**2, -1)
        return patches.permute(0, 4, 1, 3, 2).flatten(0, 1)


def _offsets(window: int, reach: int) -> torch.Tensor:
    """Index of the offset between each query (window^2) and each key (reach^2) into a table of all offsets."""
    query, key = torch.arange(window), torch.arange(reach)
    span = window + reach - 1
    one_axis = key[None, :] - query[:, None] + window - 1  # (window, reach), 0 to span - 1
    both = one_axis[:, None, :, None] * span + one_axis[None, :, None, :]
    return both.reshape(window * window, reach * reach)


class PromptFusion(nn.Module):
    """PromptIR's prompts joined to the feature, passed through one block and reduced to the feature's width.

    Args:
        dim: Channels of the feature, in and out.
        prompt_dim: Channels of a prompt.
        size: Side of a prompt before it is resized to the feature.
        block: Works on ``dim + prompt_dim`` channels.
    """

    def __init__(self, dim: int, prompt_dim: int, size: int, block: nn.Module) -> None:
        super().__init__()
        self.prompt = PromptGenerator(prompt_dim, size, dim)
        self.block = block
        self.reduce = nn.Conv2d(dim + prompt_dim, dim, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Fuse ``x`` of ``(n, c, h, w)`` with the prompts that suit it."""
        return self.reduce(self.block(torch.cat([x, self.prompt(x)], 1)))
