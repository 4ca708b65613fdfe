"""UNet and RestorationResNet: shapes, residual, levels, and their relation to stock networks."""

from __future__ import annotations

import pytest
import torch

from basicsr_plugins.archs.resnet_arch import RestorationResNet
from basicsr_plugins.archs.unet_arch import UNet
from basicsr_plugins.core.errors import OptionError


@pytest.mark.parametrize("build", [UNet, RestorationResNet])
@pytest.mark.parametrize("size", [(16, 16), (24, 40), (13, 30)])
def test_size_and_channels_are_kept(build, size):
    network = build(num_feat=4)
    images = torch.rand(2, 3, *size)
    output = network(images)
    assert output.shape == images.shape
    output.mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("build", [UNet, RestorationResNet])
def test_residual_adds_the_input(build):
    torch.manual_seed(0)
    network = build(num_feat=4)
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        with_input = network(images)
        network.residual = False
        assert torch.allclose(with_input, network(images) + images)
        network.conv_last.weight.zero_()
        network.conv_last.bias.zero_()
        network.residual = True
        assert torch.equal(network(images), images)


def test_unet_has_its_levels_and_skips():
    network = UNet(num_feat=4, num_level=3)
    assert [layer[0].out_channels for layer in network.encoder] == [4, 8, 16]
    assert network.multiple_of == 4
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        for up in network.up:  # without the way through the bottom, the skips still carry the image
            up.weight.zero_()
            up.bias.zero_()
        assert float((network(images) - images)[..., 4, 4].sub((network(images * 0))[..., 4, 4]).abs().max()) > 1e-4


def test_resnet_keys_are_those_of_stock_msrresnet():
    keys = set(RestorationResNet(num_feat=4, num_block=2).state_dict())
    parts = ["conv_first", "conv_hr", "conv_last", *(f"body.{block}.conv{conv}" for block in (0, 1) for conv in (1, 2))]
    assert keys == {f"{part}.{leaf}" for part in parts for leaf in ("weight", "bias")}


@pytest.mark.parametrize("build", [UNet, RestorationResNet])
def test_wrong_sizes_are_refused(build):
    with pytest.raises(OptionError, match="num_feat: must be at least 1"):
        build(num_feat=0)
    with pytest.raises(OptionError, match="residual: false"):
        build(num_out_ch=1)
