"""Blending: one pass equals explicitly merged weights, image by image, in either form."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from basicsr_plugins.adapters import MODES, BlendedNetwork, Factor, blend_weights
from basicsr_plugins.adapters.blend import BlendedLayer, BlendWeights, cheaper_form
from basicsr_plugins.adapters.factors import weight_change
from basicsr_plugins.core.errors import DataError, OptionError, TrainingError


def merged_by_hand(net, adapters, weights):
    """The definition: W0 + sum_k w_k dW_k in every layer, written as a loop."""
    plain = copy.deepcopy(net)
    for weight, factors in zip(weights.tolist(), adapters.values()):
        for name, factor in factors.items():
            layer = plain.get_submodule(name)
            layer.weight.data += weight * weight_change(factor)
            if factor.bias is not None:
                layer.bias.data += weight * factor.bias
    return plain


def add_biases(factors):
    """Let an adapter change the biases of a convolution and of a linear layer too."""
    for name in ("first", "pointwise", "gate"):
        factors[name] = factors[name]._replace(bias=torch.randn(factors[name].lora_B.shape[0]))


def assert_close(result, expected):
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("form", ["merged", "low_rank", "auto"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_batch_of_images_equals_merged_weights_image_by_image(net, three, form, layout):
    add_biases(three["noise"])
    base = copy.deepcopy(net)
    blended = BlendedNetwork(net, three, form=form)
    x = torch.rand(4, 3, 12, 20).to(memory_format=layout)
    weights = torch.tensor([[1.0, 0, 0], [0.2, 0.3, 0.5], [0, 0, 0], [1, 1, 1]])
    y = blended(x, weights)
    for index in range(4):
        expected = merged_by_hand(base, three, weights[index])(x[index : index + 1])
        assert_close(y[index : index + 1], expected)
        assert_close(blended(x[index : index + 1], weights[index : index + 1]), expected)
    assert (y[0] - y[2]).abs().max() > 1e-2, "the adapters must change something for this test to mean anything"


def test_one_weight_vector_serves_the_whole_batch(net, three):
    base, x = copy.deepcopy(net), torch.rand(3, 3, 8, 8)
    weights = torch.tensor([[0.5, 0.25, 0.25]])
    assert_close(BlendedNetwork(net, three)(x, weights), merged_by_hand(base, three, weights[0])(x))


def test_no_weights_are_the_base_bit_for_bit(net, three):
    x = torch.rand(2, 3, 8, 8)
    expected = net(x)
    assert torch.equal(BlendedNetwork(net, three)(x), expected)


def test_zero_lora_B_reproduce_the_base(net, three):
    x = torch.rand(2, 3, 8, 8)
    expected = net(x)
    fresh = {name: {k: f._replace(lora_B=f.lora_B * 0) for k, f in each.items()} for name, each in three.items()}
    assert_close(BlendedNetwork(net, fresh)(x, torch.rand(2, 3)), expected)


def test_merged_network_is_plain_and_equal(net, three):
    keys, x = list(net.state_dict()), torch.rand(2, 3, 8, 8)
    add_biases(three["rain"])
    blended = BlendedNetwork(net, three)
    weights = torch.tensor([0.1, 0.7, 0.2])
    plain = blended.merged(weights)
    assert list(plain.state_dict()) == keys
    assert [type(m) for m in plain.modules()] == [type(m) for m in type(net)().modules()]
    assert_close(plain(x), blended(x, weights[None]))
    assert_close(blended.merged(torch.zeros(3))(x), blended(x))


@pytest.mark.parametrize("form", ["merged", "low_rank"])
def test_gradients_reach_the_weights_and_nothing_else(net, three, form):
    blended = BlendedNetwork(net, three, form=form)
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    weights = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    blended.double()
    assert torch.autograd.gradcheck(lambda w: blended(x, w), weights)
    blended(x, weights).sum().backward()
    assert weights.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in blended.parameters())


def test_with_one_task_all_modes_give_one_image(net, three):
    """T = 1: every rule but the baseline uses the one adapter as it is."""
    blended, x = BlendedNetwork(net, {"rain": three["rain"]}), torch.rand(2, 3, 8, 8)
    sure, labels = torch.ones(2, 1), torch.zeros(2, dtype=torch.long)
    images = {mode: blended(x, blend_weights(mode, ["rain"], sure, labels=labels)) for mode in (*MODES, "rain")}
    for mode, image in images.items():
        if mode == "none":
            assert (image - images["rain"]).abs().max() > 1e-2
        else:
            assert_close(image, images["rain"])


def test_spatial_weights_that_are_constant_equal_weights_per_image(net, three):
    add_biases(three["noise"])
    blended, x = BlendedNetwork(net, three), torch.rand(2, 3, 12, 20)
    weights = torch.rand(2, 3)
    for size in ((12, 20), (3, 5), (1, 1)):
        assert_close(blended(x, weights[..., None, None].expand(-1, -1, *size)), blended(x, weights))


def test_spatial_weights_act_where_they_are(net, three):
    blended = BlendedNetwork(net, {name: {"pointwise": each["pointwise"]} for name, each in three.items()})
    blended.net.depthwise = nn.Identity()
    blended.net.gate.weight.data.zero_()
    x = torch.rand(1, 3, 16, 32)
    maps = torch.zeros(1, 3, 8, 16)
    maps[:, 0, :, :8] = 1
    maps[:, 2, :, 8:] = 1
    y = blended(x, maps)
    left, right = blended(x, torch.tensor([[1.0, 0, 0]])), blended(x, torch.tensor([[0.0, 0, 1]]))
    assert_close(y[..., :12], left[..., :12])  # four pixels from the border the output convolution sees one side only
    assert_close(y[..., 20:], right[..., 20:])
    assert (left - right).abs().max() > 1e-2


def test_spatial_weights_are_averaged_into_smaller_maps_and_interpolated_into_larger_ones():
    weights = BlendWeights()
    values = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    weights.set(values, (4, 8))
    assert weights.at(1, 1).item() == 0.5
    across = weights.at(4, 8)[0, 0, 0]
    assert across.diff().min() >= 0
    assert ((across > 0) & (across < 1)).sum() == 4, "no hard edge between two tiles"


def test_spatial_weights_on_tokens_windows_and_channels_last_grids():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    factors = {
        "a": {"0": Factor(torch.randn(2, 4), torch.randn(4, 2))},
        "b": {"0": Factor(torch.randn(1, 4), torch.randn(4, 1))},
    }
    base = copy.deepcopy(layer)

    class Tokens(nn.Module):
        def __init__(self, layout):
            super().__init__()
            self.inner, self.layout = nn.Sequential(layer), layout

        def forward(self, x):
            if self.layout == "grid":
                return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            if self.layout == "windows":
                return self.inner(x.flatten(2).transpose(1, 2).reshape(-1, 6, 4)).reshape(2, -1, 4).transpose(1, 2)
            return self.inner(x.flatten(2).transpose(1, 2)).transpose(1, 2)

    factors = {name: {"inner.0": each["0"]} for name, each in factors.items()}
    x, maps, weights = torch.rand(2, 4, 6, 8), torch.rand(2, 2, 6, 8), torch.rand(2, 2)
    changes = [weight_change(each["inner.0"]) for each in factors.values()]
    expected = base(x.permute(0, 2, 3, 1)) + sum(
        maps[:, k, :, :, None] * (x.permute(0, 2, 3, 1) @ change.T) for k, change in enumerate(changes)
    )
    expected = expected.permute(0, 3, 1, 2)
    grid = BlendedNetwork(Tokens("grid"), factors)
    assert_close(grid(x, maps), expected)
    tokens = Tokens("tokens")
    tokens.inner = grid.net.inner
    grid.net = tokens
    assert_close(grid(x, maps), expected.flatten(2))
    per_image = grid(x, weights)
    tokens.layout = "windows"
    assert_close(grid(x, weights), per_image)  # the windows of an image follow each other in the batch
    with pytest.raises(DataError, match="windows of an image"):
        grid(x, maps)


def test_geometry_of_the_layer_is_repeated():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=2, dilation=2, padding_mode="reflect")
    factor = Factor(torch.randn(2, 3, 3, 3), torch.randn(4, 2))
    net = nn.Sequential(conv)
    expected = merged_by_hand(net, {"a": {"0": factor}}, torch.tensor([0.7]))
    x = torch.rand(2, 3, 9, 9)
    for form in ("merged", "low_rank"):
        blended = BlendedNetwork(nn.Sequential(copy.deepcopy(conv)), {"a": {"0": factor}}, form=form)
        weights = torch.full((2, 1), 0.7)
        assert_close(blended(x, weights), expected(x))
        assert_close(blended(x, weights[..., None, None].expand(-1, -1, 9, 9)), expected(x))


def test_grouped_convolutions_blend_by_weights():
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    factor = Factor(torch.randn(2, 2, 3, 3), torch.randn(6, 2))
    base = nn.Sequential(copy.deepcopy(conv))
    blended = BlendedNetwork(nn.Sequential(conv), {"a": {"0": factor}}, form="low_rank")
    x, weights = torch.rand(2, 4, 5, 5), torch.tensor([[0.3], [1.0]])
    for index in range(2):
        expected = merged_by_hand(base, {"a": {"0": factor}}, weights[index])(x[index : index + 1])
        assert_close(blended(x, weights)[index : index + 1], expected)
    with pytest.raises(OptionError, match="grouped"):
        blended(x, weights[..., None, None])


def test_the_cheaper_form_follows_the_number_of_positions():
    assert cheaper_form(positions=256 * 256, inputs=48, outputs=144) == "merged"
    assert cheaper_form(positions=1, inputs=384, outputs=384) == "low_rank"
    assert cheaper_form(positions=192, inputs=384, outputs=384) == "merged"  # 384 * 384 == 192 * 768


def test_the_form_can_be_fixed(net, three, monkeypatch):
    used = []
    for form, method in (("low_rank", "_low_rank_conv"), ("merged", "merged_weight")):
        original = getattr(BlendedLayer, method)

        def noting(self, *arguments, original=original, form=form):
            used.append(form)
            return original(self, *arguments)

        monkeypatch.setattr(BlendedLayer, method, noting)
    layers = {name: {"first": each["first"]} for name, each in three.items() if "first" in each}
    for form in ("low_rank", "merged"):
        used.clear()
        BlendedNetwork(copy.deepcopy(net), layers, form=form)(torch.rand(2, 3, 8, 8), torch.rand(2, 2))
        assert used == [form]


def test_wrong_weights_are_refused(net, three):
    blended = BlendedNetwork(net, three)
    with pytest.raises(DataError, match=r"one per adapter: rain, haze, noise"):
        blended(torch.rand(1, 3, 8, 8), torch.rand(1, 2))
    with pytest.raises(DataError, match="2 weight vectors for a batch of 3"):
        blended(torch.rand(3, 3, 8, 8), torch.rand(2, 3))
    with pytest.raises(DataError, match="2 weights for 3 adapters"):
        blended.merged(torch.rand(2))
    with pytest.raises(TrainingError, match="activation checkpointing"):
        blended.net(torch.rand(1, 3, 8, 8))


def test_names_that_mean_a_mode_are_refused(net, three):
    with pytest.raises(OptionError, match="'sum' is a blend mode"):
        BlendedNetwork(net, {"sum": three["rain"]})
