"""Restormer: a U-shaped transformer whose attention runs between channels (arXiv 2111.09881, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Optional

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs.convolutions import fast_format
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.layers import init_conv_normal
from basicsr_plugins.archs.presets import with_presets
from basicsr_plugins.archs.transformer_blocks import BlockMaker, Downsample, PatchEmbed, Upsample, check_transformer
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple
from basicsr_plugins.core.registration import provides

__all__ = ["Restormer"]

PRESETS: dict[str, dict[str, Any]] = {
    "deraining": {},
    "motion_deblurring": {},
    "defocus_deblurring": {},
    "dual_pixel_defocus_deblurring": {"inp_channels": 6, "dual_pixel_task": True},
    "real_denoising": {"LayerNorm_type": "BiasFree"},
    "gaussian_color_denoising": {"LayerNorm_type": "BiasFree"},
    "gaussian_gray_denoising": {"inp_channels": 1, "out_channels": 1, "LayerNorm_type": "BiasFree"},
    # DCPT's own Restormer: other norm, other attention, other initialisation; bias-free blocks whatever `bias` says
    "dcpt": {
        "LayerNorm_type": "BiasFree", "attention": "relu", "eps": 1e-6, "block_bias": False, "init_std": 0.02,
    },
    # ours, for small GPUs, and for CPUs and tests
    "small": {"dim": 24, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 2},
    "tiny": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4]},
}  # fmt: skip


@provides("arch")
@with_presets(PRESETS)
class Restormer(HubNetwork):
    """Restormer (arXiv 2111.09881), with the switches of DCPT's variant (arXiv 2501.15510).

    Keys, shapes and results equal those of the published network. Sides need not be multiples of 8: the input is padded
    by reflection on the right and at the bottom, as the published inference scripts do, and the output cropped.

    Args:
        inp_channels: Input channels: 3, 6 for dual-pixel pairs, 1 for grey images.
        out_channels: Output channels.
        dim: Width of the first level; the levels are dim, 2 dim, 4 dim and 8 dim wide.
        num_blocks: Blocks at levels 1, 2, 3 (encoder and decoder alike) and at the latent level.
        num_refinement_blocks: Blocks after the last decoder level.
        heads: Attention heads of the four levels; refinement uses the first.
        ffn_expansion_factor: Expansion of the gated feed-forward part.
        bias: Biases of the blocks, of the channel reductions, of the skip and of the output convolution.
        LayerNorm_type: ``WithBias`` or ``BiasFree``.
        dual_pixel_task: Add the patch embedding instead of the image at the end (six channels in, three out).
        attention: ``softmax`` as published, ``relu`` as in DCPT.
        eps: Of the LayerNorms: 1e-5 as published, 1e-6 in DCPT.
        scale: Super-resolution factor of DCPT's variant (2 or 4): several output convolutions and a pixel-shuffle.
        block_bias: Biases of the blocks alone; the same as ``bias`` if left out. DCPT: false.
        init_std: Draw convolution weights from a truncated normal of this width (DCPT: 0.02); PyTorch's default if
            left out.
        use_checkpoint: Recompute blocks in the backward pass to save memory.
        preset: A published variant by name, see ``Restormer.presets``.

    Shapes: ``(n, inp_channels, h, w)`` in [0, 1] to ``(n, out_channels, h * scale, w * scale)``, not clamped.

    Raises:
        OptionError: Arguments that do not fit together.

    Example:
        network_g: {type: Restormer, preset: deraining}
    """

    #: What DCPT taps, finest first: 2 dim, 2 dim and 4 dim channels.
    feature_layers: tuple[str, ...] = ("decoder_level1", "decoder_level2", "decoder_level3")
    #: Side multiple of the published network, which pads nothing itself.
    multiple_of = 8

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",
        dual_pixel_task: bool = False,
        attention: Literal["softmax", "relu"] = "softmax",
        eps: float = 1e-5,
        scale: int = 1,
        block_bias: Optional[bool] = None,
        init_std: Optional[float] = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_transformer(dim, num_blocks, heads, LayerNorm_type, attention)
        if scale not in (1, 2, 4):
            raise OptionError(f"scale: 1, 2 or 4 (2**scale images are shuffled into scale**2 sub-pixels), got {scale}.")
        if scale > 1 and inp_channels != out_channels:
            raise OptionError(f"scale {scale} adds the input to each output: inp_channels must equal out_channels.")
        if scale == 1 and not dual_pixel_task and inp_channels not in (1, out_channels):
            raise OptionError(
                f"inp_channels {inp_channels} cannot be added to out_channels {out_channels}; "
                "set dual_pixel_task: true for dual-pixel pairs."
            )
        self.scale = scale
        self.dual_pixel_task = dual_pixel_task
        make = BlockMaker(
            heads, ffn_expansion_factor, bias if block_bias is None else block_bias, LayerNorm_type, attention, eps,
            use_checkpoint,
        )  # fmt: skip
        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.encoder_level1 = make.stage(dim, 0, num_blocks[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = make.stage(dim * 2, 1, num_blocks[1])
        self.down2_3 = Downsample(dim * 2)
        self.encoder_level3 = make.stage(dim * 4, 2, num_blocks[2])
        self.down3_4 = Downsample(dim * 4)
        self.latent = make.stage(dim * 8, 3, num_blocks[3])
        self.up4_3 = Upsample(dim * 8)
        self.reduce_chan_level3 = nn.Conv2d(dim * 8, dim * 4, 1, bias=bias)
        self.decoder_level3 = make.stage(dim * 4, 2, num_blocks[2])
        self.up3_2 = Upsample(dim * 4)
        self.reduce_chan_level2 = nn.Conv2d(dim * 4, dim * 2, 1, bias=bias)
        self.decoder_level2 = make.stage(dim * 2, 1, num_blocks[1])
        self.up2_1 = Upsample(dim * 2)
        self.decoder_level1 = make.stage(dim * 2, 0, num_blocks[0])
        self.refinement = make.stage(dim * 2, 0, num_refinement_blocks)
        if dual_pixel_task:
            self.skip_conv = nn.Conv2d(dim, dim * 2, 1, bias=bias)
        self.output: Any
        if scale == 1:
            self.output = nn.Conv2d(dim * 2, out_channels, 3, padding=1, bias=bias)
        else:
            convs = (nn.Conv2d(dim * 2, out_channels, 3, padding=1, bias=bias) for _ in range(2**scale))
            self.output = nn.ModuleList(convs)
        init_conv_normal(self, init_std)

    def forward(self, inp_img: torch.Tensor) -> torch.Tensor:
        """Restore ``inp_img`` of ``(n, inp_channels, h, w)``."""
        h, w = inp_img.shape[-2:]
        x = fast_format(pad_to_multiple(inp_img, self.multiple_of))
        embedded = self.patch_embed(x)
        e1 = self.encoder_level1(embedded)
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        latent = self.latent(self.down3_4(e3))
        d3 = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(latent), e3], 1)))
        d2 = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(d3), e2], 1)))
        d1 = self.refinement(self.decoder_level1(torch.cat([self.up2_1(d2), e1], 1)))
        if self.scale > 1:
            out = F.pixel_shuffle(torch.cat([conv(d1) + x for conv in self.output], 1), self.scale)
        elif self.dual_pixel_task:
            out = self.output(d1 + self.skip_conv(embedded))
        else:
            out = self.output(d1) + x
        return crop_to(out, h * self.scale, w * self.scale).contiguous()
