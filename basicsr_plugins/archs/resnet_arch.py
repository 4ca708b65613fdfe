"""RestorationResNet: SRResNet without batch normalisation and without upsampling, for images of one size."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides

__all__ = ["RestorationResNet"]


@provides("arch")
class RestorationResNet(HubNetwork):
    """The "ResNet" of the deraining-generalization studies (arXiv 2305.15134): stock ``MSRResNet`` at scale 1.

    Stock ``MSRResNet`` cannot be built with ``upscale: 1`` (its initialisation asks for an upsampling layer that it
    then lacks); this one has its key names, so that weights of the body go from one to the other. Stock
    ``EDSR`` with ``upscale: 1`` can be built, but has no residual from input to output.

    Args:
        num_in_ch: Channels of the input.
        num_out_ch: Channels of the output.
        num_feat: Width of the body; 64 as in the papers' laboratory code (MiOIR).
        num_block: Residual blocks; 16 as there.
        residual: Add the input to the output.

    Raises:
        OptionError: A size below 1, or ``residual`` with unequal channels.

    Example:
        .. code-block:: yaml

            network_g: {type: RestorationResNet, num_feat: 64, num_block: 16}
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        residual: bool = True,
    ) -> None:
        super().__init__()
        for name, number in (("num_feat", num_feat), ("num_block", num_block)):
            if number < 1:
                raise OptionError(f"RestorationResNet.{name}: must be at least 1, got {number}.")
        if residual and num_in_ch != num_out_ch:
            raise OptionError(
                f"RestorationResNet.residual: needs as many output as input channels, got {num_out_ch} and "
                f"{num_in_ch}; set residual: false."
            )
        self.residual = residual
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(_ResidualBlock(num_feat) for _ in range(num_block)))
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)
        for layer in self.modules():
            # a tenth of Kaiming's: the network starts close to the identity
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight)
                layer.weight.data.mul_(0.1)
                nn.init.zeros_(layer.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Restore images (n, num_in_ch, h, w) of any size."""
        x = F.leaky_relu(self.conv_first(images), 0.1)
        x = F.leaky_relu(self.conv_hr(self.body(x)), 0.1)
        x = self.conv_last(x)
        return images + x if self.residual else x


class _ResidualBlock(nn.Module):
    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))
