"""Features by module name: any network, any layout, nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from basicsr_plugins.archs.nafnet_arch import NAFNet
from basicsr_plugins.archs.restormer_arch import Restormer
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.features import FeatureTap


class Tokens(nn.Module):
    """Turns a map into tokens without saying their grid."""

    def forward(self, x):
        return x[..., ::2, ::2].flatten(2).transpose(1, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5))
        self.tail = nn.Conv2d(5, 3, 3, padding=1)
        self.unused = nn.Identity()
        self.runs = 0

    def forward(self, x):
        x = self.body(self.head(x))
        self.runs += 1
        return self.tail(x)


def test_features_in_the_asked_order_with_gradients():
    net, x = Net(), torch.rand(2, 3, 8, 12)
    inner, first = FeatureTap(net, ["body.1", "head"])(x)
    assert torch.equal(first, net.head(x))
    assert torch.equal(inner, net.body[1](net.body[0](net.head(x))))
    inner.sum().backward()
    assert net.head.weight.grad is not None
    assert net.tail.weight.grad is None


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (Restormer(preset="tiny"), "latent.0.attn.qkv"), (Restormer(preset="tiny"), "latent.0.ffn.project_out"),
        (NAFNet(preset="tiny"), "middle_blks.0.conv1"), (NAFNet(preset="tiny"), "middle_blks.0.conv4"),
    ],
)  # fmt: skip
def test_convolutions_that_are_computed_in_pieces_can_be_tapped(network, layer):
    """Our blocks multiply with the weights of plain convolutions; a tapped one has to be called."""
    image = torch.rand(1, 3, 16, 16)
    expected = network(image)
    output, [feature] = FeatureTap(network, [layer]).with_output(image)
    assert feature.dim() == 4
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_the_forward_pass_ends_after_the_last_tapped_module():
    net, x = Net(), torch.rand(1, 3, 8, 8)
    FeatureTap(net, ["head"])(x)
    assert net.runs == 0
    FeatureTap(net, ["head"], stop_early=False)(x)
    assert net.runs == 1


def test_nothing_is_left_on_the_network():
    net, x = Net(), torch.rand(1, 3, 8, 8)
    tap = FeatureTap(net, ["head", "body"])
    tap(x)
    assert all(not module._forward_hooks for module in net.modules())
    net.tail.register_forward_hook(lambda *_: 1 / 0)
    tap(x)
    broken = FeatureTap(net, ["unused"])
    with pytest.raises(ZeroDivisionError):
        broken(x)
    assert all(not module._forward_hooks for module in net.modules() if module is not net.tail)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["boddy"], r"feature_layers: Net has unknown module 'boddy'\. Did you mean 'body'"),
        (["body.9"], "unknown module 'body.9'"),
        ([""], "unknown module"),
        ([], "name at least one module of Net"),
        (["head", "head"], "named twice"),
    ],
)
def test_wrong_names(layers, message):
    with pytest.raises(OptionError, match=message):
        FeatureTap(Net(), layers)


def test_modules_that_do_not_run_or_run_twice():
    with pytest.raises(OptionError, match="'unused' did not run"):
        FeatureTap(Net(), ["unused"])(torch.rand(1, 3, 8, 8))
    shared = nn.ReLU()
    with pytest.raises(OptionError, match="runs more than once"):
        FeatureTap(nn.Sequential(shared, nn.Conv2d(3, 3, 1), shared), ["0"], stop_early=False)(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("size", [(8, 12), (16, 4), (10, 6)])
def test_tokens_become_maps_of_the_images_shape(size):
    net, x = nn.Sequential(nn.Conv2d(3, 4, 1), Tokens()), torch.rand(2, 3, *size)
    [feature] = FeatureTap(net, ["1"])(x)
    assert torch.equal(feature, net[0](x)[..., ::2, ::2])


def test_tokens_whose_grid_the_module_is_told():
    class Block(nn.Module):
        def forward(self, tokens, window, size):
            return tokens + 0

    class Padding(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            x = nn.functional.pad(x, (0, 1, 0, 1))
            return self.block(x.flatten(2).transpose(1, 2), (2, 2), tuple(x.shape[-2:]))

    image = torch.rand(2, 3, 5, 9)  # no such grid follows from the image, and the window is none
    [feature] = FeatureTap(Padding(), ["block"])(image)
    torch.testing.assert_close(feature, nn.functional.pad(image, (0, 1, 0, 1)))


def test_a_compiled_network_runs_eagerly_where_its_hooks_are_seen():
    net = Net()
    net._compiled_call_impl = lambda *_: pytest.fail("compiled code sees no hooks")  # what net.compile() sets
    assert FeatureTap(net, ["head"])(torch.rand(1, 3, 8, 8))[0].shape == (1, 4, 8, 8)


def test_what_is_neither_map_nor_tokens():
    with pytest.raises(OptionError, match="neither a map"):
        FeatureTap(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), ["1"])(torch.rand(1, 3, 8, 8))


def test_a_wrapped_network_has_the_same_names():
    net, x = Net(), torch.rand(1, 3, 8, 8)
    [plain], [wrapped] = FeatureTap(net, ["body"])(x), FeatureTap(nn.DataParallel(net), ["body"])(x)
    torch.testing.assert_close(plain, wrapped)


def test_the_dry_run_leaves_statistics_and_modes_alone():
    net = Net().train()
    net.head.eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert FeatureTap(net, ["body", "head"]).shapes(size=16) == [(5, 16, 16), (4, 16, 16)]
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert net.body.training
    assert not net.head.training


def test_a_compiled_network_is_tapped_by_its_own_names():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    image = torch.rand(1, 3, 8, 8)
    [compiled] = FeatureTap(torch.compile(net, backend="eager"), ["0"])(image)
    [plain] = FeatureTap(net, ["0"])(image)
    assert torch.equal(compiled, plain)
