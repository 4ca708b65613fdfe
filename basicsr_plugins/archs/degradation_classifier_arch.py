"""The head that DCPT puts on inner features to classify degradations (arXiv 2501.15510, Sec. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import nn

from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.layers import ChannelLayerNorm
from basicsr_plugins.archs.presets import with_presets
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides

__all__ = ["DegradationClassifier"]

PRESETS = {
    "published": {},
    "slim": {"max_width": 128, "expansion": 1},  # ours: 1.7 M parameters for NAFNet's widths instead of 49 M
}


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions without biases, each followed by a LayerNorm, and an identity shortcut.

    Args:
        channels: Width in and out.
        mid: Width of the 3x3 convolution.
    """

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.conv1 = _conv_with_norm(channels, mid, 1)
        self.conv2 = _conv_with_norm(mid, mid, 3)
        self.conv3 = _conv_with_norm(mid, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``x`` of ``(n, c, h, w)``."""
        t = self.conv2(self.conv1(x).relu()).relu()
        return (self.conv3(t) + x).relu()


class NormedConv2d(nn.Conv2d):
    """A convolution that owns the norm of its output, as the published keys (``conv1.norm.weight``) want it."""

    norm: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve and normalise ``x`` of ``(n, c, h, w)``."""
        return self.norm(super().forward(x))


@provides("arch")
@with_presets(PRESETS)
class DegradationClassifier(HubNetwork):
    """DCPT's degradation classifier (there ``PromptIR_NoImg_DC``): features of a restoration network to logits.

    From the finest feature down: z = pool(blocks(z + w_l F_l)) with softmax weights w over the features, then two more
    blocks, the global mean and a linear layer.

    Args:
        feature_dims: Channels of the features, finest first.
        num_res_blocks: Bottleneck blocks per feature.
        num_classes: Number of degradations.
        downsample: The features all have the same size (SwinIR, RCAN): keep every 2**l-th pixel of feature l.
        expansion: Inner width of a block as a multiple of its width; 2 as published.
        max_width: Project wider features to this many channels first; unset as published.
        preset: ``published`` or ``slim`` (at most 2 M parameters for features up to 512 channels).

    Shapes: a list of ``(n, d_l, h_l, w_l)``, each half the size of the one before (rounded down) unless ``downsample``,
    to ``(n, num_classes)`` logits. Height and width are independent.

    Raises:
        OptionError: Features that do not fit ``feature_dims`` or each other.

    Example:
        network_dc: {type: DegradationClassifier, feature_dims: [96, 96, 192], num_classes: 5}
    """

    restores_images = False

    #: An image's logits depend on that image alone (no batch statistics), so DCPT may cut the batch to save memory.
    independent_images = True

    def __init__(
        self,
        feature_dims: Sequence[int],
        num_res_blocks: int = 2,
        num_classes: int = 3,
        downsample: bool = False,
        expansion: int = 2,
        max_width: Optional[int] = None,
    ) -> None:
        super().__init__()
        if not feature_dims or min(feature_dims) < 1 or num_classes < 1:
            raise OptionError(
                f"feature_dims needs one width per feature and num_classes at least 1, got {list(feature_dims)}, "
                f"{num_classes}."
            )
        self.feature_dims = tuple(feature_dims)
        self.downsample = downsample
        widths = [min(dim, max_width or dim) for dim in feature_dims]

        def blocks(width: int) -> nn.Sequential:
            return nn.Sequential(*(Bottleneck(width, width * expansion) for _ in range(num_res_blocks)))

        self.mixing_weights = nn.Parameter(torch.ones(len(widths)))
        self.projections = nn.ModuleList(
            nn.Identity() if width == dim else nn.Conv2d(dim, width, 1, bias=False)
            for dim, width in zip(feature_dims, widths)
        )
        self.bottleneck_layers = nn.ModuleList(blocks(width) for width in widths)
        self.downsample_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, wider, 1, bias=False), nn.MaxPool2d(2), nn.ReLU())
            for width, wider in zip(widths, [*widths[1:], widths[-1]])
        )
        self.last_stage = blocks(widths[-1])
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Classify ``features``, finest first."""
        features = self._fitting(features)
        weights = self.mixing_weights.softmax(dim=0)
        z: Optional[torch.Tensor] = None
        for index, feature in enumerate(features):
            term = self.projections[index](feature) * weights[index]
            z = self.bottleneck_layers[index](term if z is None else z + term)
            z = self.downsample_layers[index](z)
        return self.fc(self.last_stage(z).mean(dim=(-2, -1)))

    def _fitting(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the features at the sizes that the stages need, in a list of our own."""
        count = len(self.feature_dims)
        channels = tuple(feature.shape[1] if feature.dim() == 4 else -1 for feature in features)
        if channels != self.feature_dims:
            shapes = [tuple(feature.shape) for feature in features]
            raise OptionError(
                f"the classifier expects {count} maps (n, c, h, w), finest first, of {list(self.feature_dims)} "
                f"channels, got {shapes}."
            )
        h, w = features[0].shape[-2:]
        if min(h, w) < 2**count:
            raise OptionError(f"the finest feature is {h} x {w}; {count} poolings need at least {2**count} a side.")
        sizes = [(h >> index, w >> index) for index in range(count)]
        if self.downsample:
            features = [
                feature[..., : rows << index : 1 << index, : columns << index : 1 << index]
                for index, (feature, (rows, columns)) in enumerate(zip(features, sizes))
            ]
        given = [tuple(feature.shape[-2:]) for feature in features]
        if given != sizes:
            hint = " Set downsample: true for features of one size." if len(set(given)) == 1 else ""
            raise OptionError(f"the features should be {sizes} pixels, finest first, but are {given}.{hint}")
        return list(features)


def _conv_with_norm(in_channels: int, out_channels: int, kernel: int) -> NormedConv2d:
    conv = NormedConv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    conv.norm = ChannelLayerNorm(out_channels, eps=1e-6)
    return conv
