"""NAFNet, a U-Net without activation functions, and its test-time local converter (arXiv 2204.04676, 2112.04491)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs.convolutions import fast_format, pointwise, pointwise_parts, pointwise_then_depthwise
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.layers import ChannelLayerNorm, Stage, add_product, at_least_float32
from basicsr_plugins.archs.presets import with_presets
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple, smaller
from basicsr_plugins.core.registration import provides

__all__ = ["NAFNet", "NAFNetLocal"]

_GOPRO = {"enc_blk_nums": [1, 1, 1, 28], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 1, 1]}
_SIDD = {"enc_blk_nums": [2, 2, 4, 8], "middle_blk_num": 12, "dec_blk_nums": [2, 2, 2, 2]}
PRESETS = {
    "gopro_width32": {"width": 32, **_GOPRO},
    "gopro_width64": {"width": 64, **_GOPRO},
    "reds_width64": {"width": 64, **_GOPRO},
    "sidd_width32": {"width": 32, **_SIDD},
    "sidd_width64": {"width": 64, **_SIDD},
    # DCPT 5D: its harness reflects to multiples of 16, which for four levels is the same multiple
    "dcpt": {"width": 64, **_GOPRO, "padding": "reflect"},
    # ours, for small GPUs, and for CPUs and tests
    "small": {"width": 24, "enc_blk_nums": [1, 1, 2, 4], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 1, 1]},
    "tiny": {"width": 8, "enc_blk_nums": [1, 1, 1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 1, 1]},
}


class NAFBlock(nn.Module):
    """LayerNorm, convolutions, simple gates and simplified channel attention; two residuals scaled from zero.

    Args:
        channels: Width.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.conv1 = nn.Conv2d(channels, channels * 2, 1)
        self.conv2 = nn.Conv2d(channels * 2, channels * 2, 3, padding=1, groups=channels * 2)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, channels * 2, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = ChannelLayerNorm(channels, eps=1e-6)
        self.norm2 = ChannelLayerNorm(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        # "simple gate" (Eq. 4): one half of the channels times the other
        first, second = pointwise_then_depthwise(self.conv1, self.conv2, self.norm1(x), parts=2)
        t = first * second
        x = add_product(x, pointwise(self.conv3, t * self.sca(t)), self.beta)
        first, second = pointwise_parts(self.conv4, self.norm2(x), parts=2)
        return add_product(x, pointwise(self.conv5, first * second), self.gamma)


@provides("arch")
@with_presets(PRESETS)
class NAFNet(HubNetwork):
    """NAFNet (arXiv 2204.04676), keys, shapes and results as published.

    Args:
        img_channel: Channels of the input and of the output.
        width: Channels of the finest level; each level below is twice as wide.
        middle_blk_num: Blocks at the coarsest level.
        enc_blk_nums: Blocks per encoder level, finest first. Its length n is the number of levels.
        dec_blk_nums: Blocks per decoder level, coarsest first; as many levels.
        padding: How sides become multiples of 2**n: ``zeros`` as published, ``reflect`` as DCPT's test harness does.
        use_checkpoint: Recompute blocks in the backward pass to save memory.
        preset: A published variant by name, see ``NAFNet.presets``.

    Shapes: ``(n, img_channel, h, w)`` in [0, 1] to the same, not clamped. Any size.

    Raises:
        OptionError: Encoder and decoder have different numbers of levels.

    Example:
        network_g: {type: NAFNet, preset: gopro_width32}
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
        padding: Literal["zeros", "reflect"] = "zeros",
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        levels = len(enc_blk_nums)
        if len(dec_blk_nums) != levels:
            raise OptionError(
                f"enc_blk_nums and dec_blk_nums need one value per level each, got {list(enc_blk_nums)} and "
                f"{list(dec_blk_nums)}."
            )
        if padding not in ("zeros", "reflect"):
            raise OptionError(f"padding: zeros or reflect, got {padding!r}.")
        self.padding = padding
        self.multiple_of = 2**levels

        def stage(level: int, blocks: int) -> Stage:
            return Stage(*(NAFBlock(width * 2**level) for _ in range(blocks)), use_checkpoint=use_checkpoint)

        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.encoders = nn.ModuleList(stage(level, blocks) for level, blocks in enumerate(enc_blk_nums))
        coarse_first = range(levels - 1, -1, -1)
        self.decoders = nn.ModuleList(stage(level, blocks) for level, blocks in zip(coarse_first, dec_blk_nums))
        self.middle_blks = stage(levels, middle_blk_num)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width * 2 ** (level + 1), width * 2 ** (level + 2), 1, bias=False),
                          nn.PixelShuffle(2))
            for level in coarse_first
        )  # fmt: skip
        self.downs = nn.ModuleList(
            nn.Conv2d(width * 2**level, width * 2 ** (level + 1), 2, stride=2) for level in range(levels)
        )
        #: What DCPT taps, finest first: width, 2 width, 4 width ... channels.
        self.feature_layers: tuple[str, ...] = tuple(f"decoders.{stage}" for stage in coarse_first)

    def forward(self, inp: torch.Tensor) -> torch.Tensor:
        """Restore ``inp`` of ``(n, img_channel, h, w)``."""
        h, w = inp.shape[-2:]
        x = fast_format(pad_to_multiple(inp, self.multiple_of, self.padding))
        f = self.intro(x)
        skips = []
        for encoder, down in zip(self.encoders, self.downs):
            f = encoder(f)
            skips.append(f)
            f = down(f)
        f = self.middle_blks(f)
        for decoder, up in zip(self.decoders, self.ups):
            f = decoder(up(f) + skips.pop())
        return crop_to(self.ending(f) + x, h, w).contiguous()


@provides("arch")
@with_presets(PRESETS)
class NAFNetLocal(NAFNet):
    """NAFNet with the test-time local converter "TLC" (arXiv 2112.04491): channel attention looks at a window only.

    The window is one and a half times the size of the training crops, so that large images meet statistics as in
    training. State dicts are those of ``NAFNet``. An image that fits into the window gives NAFNet's result.

    Args:
        train_size: ``(n, c, h, w)`` of the training crops; only h and w matter. The published default is 256 x 256,
            DCPT's is ``[1, 3, 128, 128]``.
        fast_imp: Only false: the published sub-sampled approximation gives other numbers and is not offered.

    The other arguments are those of ``NAFNet``. As published, the network comes back in eval mode.

    Raises:
        OptionError: As for ``NAFNet``; ``fast_imp`` is true; ``train_size`` is not four positive numbers.

    Example:
        network_g: {type: NAFNetLocal, preset: gopro_width32}
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
        padding: Literal["zeros", "reflect"] = "zeros",
        use_checkpoint: bool = False,
        *,
        train_size: Sequence[int] = (1, 3, 256, 256),
        fast_imp: bool = False,
    ) -> None:
        if fast_imp:
            raise OptionError("fast_imp: only false is offered; true is an approximation with other results.")
        if len(train_size) != 4 or min(train_size) < 1:
            raise OptionError(f"train_size: four positive numbers (n, c, h, w), got {list(train_size)}.")
        super().__init__(img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums, padding, use_checkpoint)
        side = (train_size[-2], train_size[-1])
        base = (int(side[0] * 1.5), int(side[1] * 1.5))
        levels = len(self.encoders)
        coarse_first = reversed(range(levels))
        for level, stage in (*enumerate((*self.encoders, self.middle_blks)), *zip(coarse_first, self.decoders)):
            for block in stage:
                block.sca[0] = _pool_at(level, levels, side, base)
        self.eval()


class LocalAvgPool2d(nn.Module):
    """Mean over a sliding window, at every pixel; the border repeats the outermost full window.

    Args:
        kernel_size: Height and width of the window. A map that is no larger on both sides gets its global mean.
    """

    def __init__(self, kernel_size: tuple[int, int]) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``x`` of ``(n, c, h, w)`` to the same size, or to ``(n, c, 1, 1)``."""
        h, w = x.shape[-2:]
        kh, kw = smaller(h, self.kernel_size[0]), smaller(w, self.kernel_size[1])
        mean = x.mean(dim=(-2, -1), keepdim=True)
        if not torch.jit.is_tracing() and kh == h and kw == w:
            return mean
        # running sums of the deviations stay small, so that large images keep their precision in float32
        boxes = _sliding_sum(_sliding_sum(at_least_float32(x - mean), kw, -1), kh, -2) / (kh * kw)
        top, left = (kh - 1) // 2, (kw - 1) // 2
        boxes = F.pad(boxes, (left, kw - 1 - left, top, kh - 1 - top), mode="replicate")
        return boxes.to(x.dtype) + mean

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}"


def _sliding_sum(x: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    total = x.cumsum(dim)
    size = x.shape[dim]
    first = total.narrow(dim, length - 1, 1)
    rest = total.narrow(dim, length, size - length) - total.narrow(dim, 0, size - length)
    return torch.cat([first, rest], dim)


def _pool_at(level: int, levels: int, side: tuple[int, int], base: tuple[int, int]) -> LocalAvgPool2d:
    # the published converter measures the maps of one padded training crop; their sizes follow from the level
    padded = tuple(-(-s // 2**levels) * 2**levels for s in side)
    kh, kw = ((p >> level) * b // s for p, b, s in zip(padded, base, side))
    return LocalAvgPool2d((kh, kw))
