"""UNet: the plain encoder-decoder with skip connections of the deraining-generalization studies."""

from __future__ import annotations

import torch
from torch import nn

from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple
from basicsr_plugins.core.registration import provides

__all__ = ["UNet"]


@provides("arch")
class UNet(HubNetwork):
    """Plain UNet (arXiv 1505.04597) without normalisation, used as derainer in arXiv 2305.15134.

    Each level has two 3 x 3 convolutions with ReLU; a stride-2 convolution goes down, a transposed one up. The papers
    do not publish the sizes: four levels of 64, 128, 256, 512 channels are ours.

    Args:
        num_in_ch: Channels of the input.
        num_out_ch: Channels of the output.
        num_feat: Channels of the finest level; each coarser one has twice as many.
        num_level: Number of resolutions.
        residual: Add the input to the output, so that the network predicts the degradation.

    Raises:
        OptionError: A size below 1, or ``residual`` with unequal channels.

    Example:
        .. code-block:: yaml

            network_g: {type: UNet, num_feat: 64, num_level: 4}
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_level: int = 4,
        residual: bool = True,
    ) -> None:
        super().__init__()
        for name, number in (("num_feat", num_feat), ("num_level", num_level)):
            if number < 1:
                raise OptionError(f"UNet.{name}: must be at least 1, got {number}.")
        if residual and num_in_ch != num_out_ch:
            raise OptionError(
                f"UNet.residual: needs as many output as input channels, got {num_out_ch} and {num_in_ch}; "
                "set residual: false."
            )
        self.residual = residual
        #: Sides are padded to multiples of this.
        self.multiple_of = 2 ** (num_level - 1)
        widths = [num_feat * 2**level for level in range(num_level)]
        pairs = list(zip(widths, widths[1:]))
        self.encoder = nn.ModuleList(_two_convs(before, after) for before, after in zip([num_in_ch, *widths], widths))
        self.down = nn.ModuleList(nn.Conv2d(fine, fine, 2, stride=2) for fine, _ in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(_two_convs(2 * fine, fine) for fine, _ in pairs)
        self.conv_last = nn.Conv2d(widths[0], num_out_ch, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Restore images (n, num_in_ch, h, w) of any size."""
        skips = []
        x = pad_to_multiple(images, self.multiple_of)
        for encoder, down in zip(self.encoder, self.down):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.encoder[-1](x)
        for up, decoder in zip(reversed(self.up), reversed(self.decoder)):
            x = decoder(torch.cat([up(x), skips.pop()], dim=1))
        x = crop_to(self.conv_last(x), *images.shape[-2:])
        return images + x if self.residual else x


def _two_convs(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
    )
