"""SwinIR as DCPT changed it: no position bias, no mask for shifted windows (arXiv 2501.15510, on arXiv 2108.10257)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Optional

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from basicsr_plugins import stock
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple
from basicsr_plugins.core.registration import provides

__all__ = ["DCPTSwinIR"]


@provides("arch")
class DCPTSwinIR(HubNetwork):
    """Stock SwinIR with DCPT's defaults and two switches that stock lacks; any input size.

    The keys are stock SwinIR's; ``basicsr_plugins.checkpoints.convert`` renames DCPT's. As in DCPT the three
    super-resolution heads return ``img_range * (y - mean)``: only the plain head undoes the normalisation.

    Args:
        use_checkpoint: Recompute groups of blocks in the backward pass to save memory (stock's own option fails).
        position_bias: Learn a bias for each offset of two tokens, as stock does.
        shift_mask: Keep regions that only meet because shifted windows wrap around from attending to each other.

    The other arguments are stock SwinIR's. Shapes: ``(n, in_chans, h, w)`` to ``(n, in_chans, h * upscale, w *
    upscale)``, not clamped.

    Raises:
        OptionError: Arguments that do not fit together.
        DependencyError: BasicSR is not installed.

    Example:
        network_g: {type: DCPTSwinIR}
    """

    #: What the constructor takes over from stock's network.
    conv_first: nn.Module
    patch_embed: nn.Module
    patch_unembed: nn.Module
    pos_drop: nn.Module
    layers: Any
    norm: nn.Module
    conv_after_body: nn.Module
    conv_before_upsample: nn.Module
    upsample: Any
    conv_up1: nn.Module
    conv_up2: nn.Module
    conv_hr: nn.Module
    lrelu: nn.Module
    conv_last: nn.Module
    absolute_pos_embed: nn.Parameter
    mean: torch.Tensor

    def __init__(
        self,
        img_size: int = 128,
        in_chans: int = 3,
        embed_dim: int = 180,
        depths: Sequence[int] = (6,) * 6,
        num_heads: Sequence[int] = (6,) * 6,
        window_size: int = 8,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: Optional[float] = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 1,
        img_range: float = 1.0,
        upsampler: Literal["", "pixelshuffle", "pixelshuffledirect", "nearest+conv"] = "",
        resi_connection: Literal["1conv", "3conv"] = "1conv",
        position_bias: bool = False,
        shift_mask: bool = False,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads):
            raise OptionError(
                f"depths and num_heads: one value per group each, got {list(depths)} and {list(num_heads)}."
            )
        if any(embed_dim % heads for heads in num_heads):
            raise OptionError(f"embed_dim {embed_dim} does not split into {list(num_heads)} heads.")
        if img_size > window_size and img_size % window_size:
            raise OptionError(f"img_size: a multiple of window_size {window_size}, got {img_size}.")
        if upsampler == "nearest+conv" and upscale not in (2, 4):
            raise OptionError(f"upscale: 2 or 4 with nearest+conv, got {upscale}.")
        built = _stock_class()(
            img_size=img_size, in_chans=in_chans, embed_dim=embed_dim, depths=tuple(depths),
            num_heads=tuple(num_heads), window_size=window_size, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias,
            qk_scale=qk_scale, drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate,
            ape=ape, patch_norm=patch_norm, upscale=4 if upsampler == "nearest+conv" else upscale,
            img_range=img_range, upsampler=upsampler, resi_connection=resi_connection,
        )  # fmt: skip
        if upsampler == "nearest+conv" and upscale == 2:  # stock only builds the fourfold head
            del built.conv_up2
        # the parts of stock's network under their own names, hence with its keys
        for name, part in built.named_children():
            self.add_module(name, part)
        for name, parameter in built.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.register_buffer("mean", built.mean, persistent=False)
        self.img_range, self.upsampler, self.upscale = img_range, upsampler, upscale
        self.window_size, self.ape, self.use_checkpoint = window_size, ape, use_checkpoint
        for layer in self.layers:
            for block in layer.residual_group.blocks:
                block.attn = SwitchedAttention(block.attn, position_bias, shift_mask)
                if not shift_mask:
                    block.attn_mask = None
                    block.calculate_mask = _NoMask.of  # stock's draws one on the CPU for any size but img_size

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """The later half of the groups, last first: DCPT's ``decode_layers``."""
        count = len(self.layers)
        return tuple(f"layers.{index}" for index in reversed(range(count // 2, count)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Restore ``x`` of ``(n, c, h, w)``."""
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.window_size)
        mean = self.mean.to(x.dtype)
        x = (x - mean) * self.img_range
        first = self.conv_first(x)
        body = self.conv_after_body(self.forward_features(first)) + first
        if not self.upsampler:
            return crop_to((x + self.conv_last(body)) / self.img_range + mean, h, w).contiguous()
        return crop_to(self._enlarge(body), h * self.upscale, w * self.upscale).contiguous()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Run the groups of blocks on ``(n, embed_dim, h, w)``, as tokens in between."""
        size = (x.shape[-2], x.shape[-1])
        tokens = self.patch_embed(x)
        if self.ape:
            tokens = tokens + self.absolute_pos_embed
        tokens = self.pos_drop(tokens)
        recompute = self.use_checkpoint and self.training and torch.is_grad_enabled()
        for layer in self.layers:
            tokens = checkpoint(layer, tokens, size, use_reentrant=False) if recompute else layer(tokens, size)
        return self.patch_unembed(self.norm(tokens), size)

    def _enlarge(self, x: torch.Tensor) -> torch.Tensor:
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(x)
        x = self.conv_before_upsample(x)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(x))
        x = self.lrelu(self.conv_up1(F.interpolate(x, scale_factor=2, mode="nearest")))
        if self.upscale == 4:
            x = self.lrelu(self.conv_up2(F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(x)))


class SwitchedAttention(nn.Module):
    """Stock SwinIR's window attention, with the position bias and the mask optional.

    Args:
        stock_attention: The module whose layers are taken over.
        position_bias: Keep its table of biases.
        shift_mask: Add the mask that the block hands over.
    """

    def __init__(self, stock_attention: Any, position_bias: bool, shift_mask: bool) -> None:
        super().__init__()
        self.num_heads = stock_attention.num_heads
        self.scale = stock_attention.scale
        self.shift_mask = shift_mask
        self.dropout = stock_attention.attn_drop.p
        if position_bias:
            self.relative_position_bias_table = stock_attention.relative_position_bias_table
            self.register_buffer("relative_position_index", stock_attention.relative_position_index)
        else:
            self.relative_position_bias_table = None
        self.qkv = stock_attention.qkv
        self.proj = stock_attention.proj
        self.proj_drop = stock_attention.proj_drop

    def forward(self, x: torch.Tensor, mask: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Attend in ``(m, tokens, c)``; ``mask`` is ``(windows, tokens, tokens)`` or None."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q = q * (self.scale * q.shape[-1] ** 0.5)  # torch 2.0 always takes 1/sqrt(d)
        out = F.scaled_dot_product_attention(
            q, k, v, self._bias(q, mask), dropout_p=self.dropout if self.training else 0.0
        )
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))

    def _bias(self, q: torch.Tensor, mask: Optional[torch.Tensor]) -> Optional[torch.Tensor]:
        bias = None
        if self.relative_position_bias_table is not None:
            bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None].to(q.dtype)
        if mask is not None and self.shift_mask:
            mask = mask[:, None].to(q.dtype)
            bias = mask if bias is None else bias + mask
            bias = bias.repeat(q.shape[0] // mask.shape[0], 1, 1, 1)
        return bias


class _NoMask:
    """What stock's blocks take for a mask and move to the device, where there is none."""

    @classmethod
    def of(cls, size: Sequence[int]) -> _NoMask:
        """Stand in for ``calculate_mask``."""
        return cls()

    def to(self, device: torch.device) -> None:
        """Arrive as no mask."""


def _stock_class() -> Any:
    stock.registries()  # makes BasicSR importable, or says why it is not
    from basicsr.archs.swinir_arch import SwinIR

    return SwinIR
