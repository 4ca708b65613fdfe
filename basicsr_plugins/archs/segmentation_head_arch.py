"""The head of ABAIR's phase I: the degradation of each pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.core.padding import crop_to
from basicsr_plugins.core.registration import provides

__all__ = ["SegmentationHead"]


@provides("arch")
class SegmentationHead(HubNetwork):
    """Logits of the degradation type of every pixel, from one inner feature of any restoration network.

    It trains beside the network in phase I (ABAIR, arXiv 2411.18412, figure 2) and is dropped afterwards. Its layers
    are not published; a 3x3 and a 1x1 convolution are ours.

    Args:
        num_classes: Types of degradation.
        in_channels: Channels of the feature; ABAIRPretrainModel reads it from the network.
        width: Channels between the two convolutions.

    Shapes: a feature ``(n, in_channels, h / s, w / s)`` and the image's size to logits ``(n, num_classes, h, w)``.

    Example:
        network_s: {type: SegmentationHead, num_classes: 5}
    """

    restores_images = False

    def __init__(self, num_classes: int, in_channels: int = 96, width: int = 48) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, num_classes, 1)
        )

    def forward(self, feature: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return logits for an image of ``size`` (h, w); what the network padded at the right and bottom is cut off."""
        logits = self.head(feature)
        step = max(1, round(size[0] / logits.shape[-2]), round(size[1] / logits.shape[-1]))
        if step > 1:
            logits = F.interpolate(logits, scale_factor=float(step), mode="bilinear", align_corners=False)
        if logits.shape[-2] < size[0] or logits.shape[-1] < size[1]:
            return F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return crop_to(logits, *size)
