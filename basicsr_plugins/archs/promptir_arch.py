"""PromptIR: Restormer's U-net with learned prompts that encode the degradation (arXiv 2306.13090)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Optional

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs.convolutions import fast_format
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.presets import with_presets
from basicsr_plugins.archs.transformer_blocks import BlockMaker, Downsample, PatchEmbed, Upsample, check_transformer
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple
from basicsr_plugins.core.registration import provides

__all__ = ["PromptIR"]

PRESETS: dict[str, dict[str, Any]] = {
    "published": {},  # 3D and 5D checkpoints alike
    "dcpt": {"unused_layers": False},  # the same numbers, without the six layers that nothing uses
    # ours, for small GPUs, and for CPUs and tests
    "small": {
        "dim": 24, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 2, "prompt_dims": [32, 64, 160],
        "unused_layers": False,
    },
    "tiny": {
        "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4],
        "prompt_dims": [8, 16, 24], "prompt_sizes": [16, 8, 4], "unused_layers": False,
    },
}  # fmt: skip

PROMPTS = 5  # per level, as published


class PromptGenerator(nn.Module):
    """Mix the learned prompts with weights that the feature's mean decides, and resize the result to the feature.

    Args:
        prompt_dim: Channels of a prompt.
        prompt_size: Side of a prompt.
        feature_dim: Channels of the feature.
    """

    def __init__(self, prompt_dim: int, prompt_size: int, feature_dim: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, PROMPTS, prompt_dim, prompt_size, prompt_size))
        self.linear_layer = nn.Linear(feature_dim, PROMPTS)
        self.conv3x3 = nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the prompt ``(n, prompt_dim, h, w)`` for the feature ``x`` of ``(n, feature_dim, h, w)``."""
        weights = self.linear_layer(x.mean(dim=(-2, -1))).softmax(dim=1)
        prompts = self.prompt_param[0]
        prompt = (weights.to(prompts.dtype) @ prompts.flatten(1)).unflatten(1, prompts.shape[1:])
        return self.conv3x3(F.interpolate(prompt, x.shape[-2:], mode="bilinear", align_corners=False))


@provides("arch")
@with_presets(PRESETS)
class PromptIR(HubNetwork):
    """PromptIR (arXiv 2306.13090), keys, shapes and results as published, any input size.

    The published network owns six layers that its forward never uses. They are kept, without gradients, so that
    checkpoints load strictly (``PromptIR.unused_parameters``); ``unused_layers: false`` leaves them out, as DCPT does.

    Args:
        inp_channels: Input channels.
        out_channels: Output channels.
        dim: Width of the first level. The published network only works with 48; the decoder's widths follow it here.
        num_blocks: Blocks at levels 1, 2, 3 and at the latent level.
        num_refinement_blocks: Blocks after the last decoder level.
        heads: Attention heads of the four levels. All three prompt blocks use the third.
        ffn_expansion_factor: Expansion of the gated feed-forward part.
        bias: Biases of the blocks, of the channel reductions and of the output convolution.
        LayerNorm_type: ``WithBias`` or ``BiasFree``.
        decoder: Only true, which all published checkpoints use: without the prompts the published forward fails.
        prompt_dims: Channels of the prompts at levels 1, 2, 3 (ours; the published values are the default).
        prompt_sizes: Sides of the prompts (likewise).
        unused_layers: Own the six layers that are never used.
        use_checkpoint: Recompute blocks in the backward pass to save memory.
        preset: A variant by name, see ``PromptIR.presets``.

    Shapes: ``(n, inp_channels, h, w)`` in [0, 1] to ``(n, out_channels, h, w)``, not clamped.

    Raises:
        OptionError: Arguments that do not fit together.

    Example:
        network_g: {type: PromptIR, preset: published}
    """

    #: What DCPT taps, finest first: the 1x1 convolutions after each prompt, at 1/2, 1/4 and 1/8 of the size.
    feature_layers: tuple[str, ...] = ("reduce_noise_level1", "reduce_noise_level2", "reduce_noise_level3")
    #: Side multiple of the published network, which pads nothing itself.
    multiple_of = 8
    #: Layers that the published network owns and never uses.
    unused_parameters: tuple[str, ...] = (
        "chnl_reduce1", "chnl_reduce2", "chnl_reduce3",
        "reduce_noise_channel_1", "reduce_noise_channel_2", "reduce_noise_channel_3",
    )  # fmt: skip

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
        decoder: bool = True,
        prompt_dims: Sequence[int] = (64, 128, 320),
        prompt_sizes: Sequence[int] = (64, 32, 16),
        unused_layers: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_transformer(dim, num_blocks, heads, LayerNorm_type, "softmax")
        if not decoder:
            raise OptionError("decoder: only true; the published network without prompts fails in its forward pass.")
        if len(prompt_dims) != 3 or len(prompt_sizes) != 3:
            raise OptionError(
                f"prompt_dims and prompt_sizes need three values each, got {list(prompt_dims)}, {list(prompt_sizes)}."
            )
        fused = [dim * 2 + prompt_dims[0], dim * 4 + prompt_dims[1], dim * 8 + prompt_dims[2]]
        if any(width % heads[2] for width in fused):
            raise OptionError(f"feature plus prompt are {fused} channels wide: not multiples of {heads[2]} heads.")
        make = BlockMaker(heads, ffn_expansion_factor, bias, LayerNorm_type, "softmax", 1e-5, use_checkpoint)

        def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
            return nn.Conv2d(in_channels, out_channels, 1, bias=bias)

        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.prompt1 = PromptGenerator(prompt_dims[0], prompt_sizes[0], dim * 2)
        self.prompt2 = PromptGenerator(prompt_dims[1], prompt_sizes[1], dim * 4)
        self.prompt3 = PromptGenerator(prompt_dims[2], prompt_sizes[2], dim * 8)
        if unused_layers:
            self.chnl_reduce1, self.chnl_reduce2, self.chnl_reduce3 = (
                conv1x1(given, kept).requires_grad_(False) for given, kept in ((64, 64), (128, 128), (320, 256))
            )
            self.reduce_noise_channel_1 = conv1x1(dim + 64, dim).requires_grad_(False)
        self.encoder_level1 = make.stage(dim, 0, num_blocks[0])
        self.down1_2 = Downsample(dim)
        if unused_layers:
            self.reduce_noise_channel_2 = conv1x1(dim * 2 + 128, dim * 2).requires_grad_(False)
        self.encoder_level2 = make.stage(dim * 2, 1, num_blocks[1])
        self.down2_3 = Downsample(dim * 2)
        if unused_layers:
            self.reduce_noise_channel_3 = conv1x1(dim * 4 + 256, dim * 4).requires_grad_(False)
        self.encoder_level3 = make.stage(dim * 4, 2, num_blocks[2])
        self.down3_4 = Downsample(dim * 4)
        self.latent = make.stage(dim * 8, 3, num_blocks[3])
        self.up4_3 = Upsample(dim * 4)
        self.reduce_chan_level3 = conv1x1(dim * 6, dim * 4)
        self.noise_level3 = make.block(fused[2], 2)
        self.reduce_noise_level3 = conv1x1(fused[2], dim * 4)
        self.decoder_level3 = make.stage(dim * 4, 2, num_blocks[2])
        self.up3_2 = Upsample(dim * 4)
        self.reduce_chan_level2 = conv1x1(dim * 4, dim * 2)
        self.noise_level2 = make.block(fused[1], 2)
        self.reduce_noise_level2 = conv1x1(fused[1], dim * 4)
        self.decoder_level2 = make.stage(dim * 2, 1, num_blocks[1])
        self.up2_1 = Upsample(dim * 2)
        self.noise_level1 = make.block(fused[0], 2)
        self.reduce_noise_level1 = conv1x1(fused[0], dim * 2)
        self.decoder_level1 = make.stage(dim * 2, 0, num_blocks[0])
        self.refinement = make.stage(dim * 2, 0, num_refinement_blocks)
        self.output = nn.Conv2d(dim * 2, out_channels, 3, padding=1, bias=bias)

    def forward(self, inp_img: torch.Tensor, noise_emb: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Restore ``inp_img`` of ``(n, inp_channels, h, w)``; ``noise_emb`` is ignored, as in the published network."""
        h, w = inp_img.shape[-2:]
        x = fast_format(pad_to_multiple(inp_img, self.multiple_of))
        e1 = self.encoder_level1(self.patch_embed(x))
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        latent = self.latent(self.down3_4(e3))
        latent = self.reduce_noise_level3(self.noise_level3(torch.cat([latent, self.prompt3(latent)], 1)))
        d3 = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(latent), e3], 1)))
        d3 = self.reduce_noise_level2(self.noise_level2(torch.cat([d3, self.prompt2(d3)], 1)))
        d2 = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(d3), e2], 1)))
        d2 = self.reduce_noise_level1(self.noise_level1(torch.cat([d2, self.prompt1(d2)], 1)))
        d1 = self.refinement(self.decoder_level1(torch.cat([self.up2_1(d2), e1], 1)))
        return crop_to(self.output(d1) + x, h, w).contiguous()
