"""ABAIRNet, the segmentation head and the estimator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from basicsr_plugins.adapters import select_targets
from basicsr_plugins.archs.abair_arch import ABAIRNet, OverlappingAttention
from basicsr_plugins.archs.degradation_estimator_arch import DegradationEstimator, stored_classes
from basicsr_plugins.archs.segmentation_head_arch import SegmentationHead
from basicsr_plugins.core.errors import CheckpointError, OptionError

# -- the network ----------------------------------------------------------------------------------------------------


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_full_size_has_the_published_number_of_parameters_and_so_have_its_adapters():
    with torch.device("meta"):
        net = ABAIRNet(preset="full")
    assert count(net) / 1e6 == pytest.approx(59, abs=1)
    layers = [net.get_submodule(name) for name in select_targets(net)]
    per_adapter = sum(4 * (layer.weight.shape[0] + layer.weight.shape[1]) for layer in layers)
    assert 5 * per_adapter / 1e6 == pytest.approx(3.6, rel=0.1)


@pytest.mark.parametrize("size", [(16, 24), (17, 9), (3, 2), (1, 1)])
def test_any_size_comes_back(size):
    net = ABAIRNet(preset="tiny").eval()
    x = torch.rand(2, 3, *size)
    y = net(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y[:1], net(x[:1]), rtol=1e-4, atol=1e-5)


def test_every_parameter_takes_part():
    net = ABAIRNet(preset="tiny")
    net(torch.rand(1, 3, 16, 16)).square().sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_the_result_is_a_residual_on_the_image():
    net = ABAIRNet(preset="tiny")
    nn.init.zeros_(net.output.weight)
    x = torch.rand(1, 3, 12, 12)
    assert torch.equal(net(x), x)


def test_prompts_and_spatial_attention_matter():
    net, x = ABAIRNet(preset="tiny").eval(), torch.rand(1, 3, 16, 16)
    y = net(x)
    for part in ("prompt1.prompt.prompt_param", "refinement.0.spatial_attn.position"):
        parameter = net.get_parameter(part)
        kept = parameter.data.clone()
        parameter.data.normal_()
        assert not torch.equal(net(x), y), part
        parameter.data.copy_(kept)
    assert torch.equal(net(x), y)


def test_checkpointing_changes_nothing():
    torch.manual_seed(0)
    net, x = ABAIRNet(preset="tiny", use_checkpoint=True).train(), torch.rand(1, 3, 16, 16)
    net(x).sum().backward()
    recomputed = net.patch_embed.proj.weight.grad.clone()
    net.zero_grad()
    for module in net.modules():
        module.use_checkpoint = False
    net(x).sum().backward()
    torch.testing.assert_close(net.patch_embed.proj.weight.grad, recomputed)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"window": 7}, "window must be even"),
        ({"window": 4, "overlap": 0.25}, "even number of pixels"),
        ({"prompt_dims": [1, 2]}, "need three values"),
        ({"heads": [3, 2, 4, 8]}, "multiples of heads"),
        ({"preset": "tniy"}, "'tiny'"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(OptionError, match=text):
        ABAIRNet(**{"dim": 8, **options} if "preset" not in options else options)


def attend_by_loop(layer: OverlappingAttention, x: torch.Tensor) -> torch.Tensor:
    """The definition, pixel by pixel: the queries of a window see the keys of the larger window around it."""
    c, h, w = x.shape[1:]
    q, k, v = layer.qkv(x)[0].chunk(3)
    d, margin = c // layer.heads, (layer.reach - layer.window) // 2
    span = layer.window + layer.reach - 1
    out = torch.zeros(c, h, w)
    for y in range(h):
        for column in range(w):
            top, left = y // layer.window * layer.window - margin, column // layer.window * layer.window - margin
            for head in range(layer.heads):
                part = slice(head * d, (head + 1) * d)
                logits, values = [], []
                for ky in range(top, top + layer.reach):
                    for kx in range(left, left + layer.reach):
                        inside = 0 <= ky < h and 0 <= kx < w
                        key = k[part, ky, kx] if inside else torch.zeros(d)
                        offset_y = (ky - top) - (y - top - margin) + layer.window - 1
                        offset_x = (kx - left) - (column - left - margin) + layer.window - 1
                        bias = layer.position[head, offset_y * span + offset_x]
                        logits.append(q[part, y, column] @ key / d**0.5 + bias)
                        values.append(v[part, ky, kx] if inside else torch.zeros(d))
                weights = torch.stack(logits).softmax(0)
                out[part, y, column] = weights @ torch.stack(values)
    return layer.project_out(out[None])


@pytest.mark.parametrize(("size", "overlap"), [((4, 8), 0.5), ((5, 3), 0.5), ((4, 4), 0.0)])
def test_spatial_attention_equals_a_loop(size, overlap):
    torch.manual_seed(0)
    layer = OverlappingAttention(4, heads=2, window=4, overlap=overlap)
    assert layer.reach == 4 + 4 * overlap
    nn.init.normal_(layer.position)
    x = torch.randn(1, 4, *size)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), attend_by_loop(layer, x), rtol=1e-4, atol=1e-5)


# -- the segmentation head ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "size"), [((16, 24), (16, 24)), ((8, 12), (15, 23)), ((2, 3), (15, 24)), ((4, 4), (9, 9))]
)
def test_head_gives_logits_for_each_pixel(feature, size):
    head = SegmentationHead(num_classes=4, in_channels=6, width=8)
    assert head(torch.rand(2, 6, *feature), size).shape == (2, 4, *size)


def test_head_cuts_off_what_the_network_padded():
    head, feature = SegmentationHead(num_classes=2, in_channels=3, width=4), torch.rand(1, 3, 8, 16)
    whole = head(feature, (8, 16))
    assert torch.equal(head(feature, (5, 13)), whole[..., :5, :13])


# -- the estimator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (33, 17), (5, 3)])
def test_estimator_takes_any_size(size):
    net = DegradationEstimator(classes=["a", "b", "c"], preset="tiny").eval()
    x = torch.rand(2, 3, *size)
    assert net(x).shape == (2, 3)
    torch.testing.assert_close(net(x)[1:], net(x[1:]), rtol=1e-4, atol=1e-6)
    assert net.maps(x, 16).shape == (2, 3, max(1, round(size[0] / 16)), max(1, round(size[1] / 16)))


def test_one_tile_is_the_whole_image():
    net, x = DegradationEstimator(classes=["a", "b"], preset="tiny").eval(), torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(net.maps(x, 32).flatten(1), net(x))


def test_the_whole_is_seen_through_a_small_view():
    estimator, seen = DegradationEstimator(["rain"], width=8, view=32), []
    estimator.whole.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.rand(1, 3, 64, 96)
    estimator(x)
    torch.testing.assert_close(seen[0], torch.nn.functional.adaptive_avg_pool2d(x, 32))
    estimator(x[..., :20, :])
    assert seen[1].shape[-2:] == (20, 32)


def test_estimator_sees_noise_that_a_small_view_has_lost():
    torch.manual_seed(0)
    net = DegradationEstimator(classes=["a", "b"], preset="tiny").eval()
    clean = torch.full((1, 3, 256, 256), 0.5)
    noisy = clean + 0.1 * torch.randn(1, 3, 128, 128).repeat_interleave(2, 2).repeat_interleave(2, 3)
    noisy[..., ::2, 1::2], noisy[..., 1::2, ::2] = 1 - noisy[..., ::2, ::2], 1 - noisy[..., ::2, ::2]
    noisy[..., 1::2, 1::2] = noisy[..., ::2, ::2]
    pooled = nn.functional.adaptive_avg_pool2d(noisy, net.view)
    torch.testing.assert_close(pooled, torch.full_like(pooled, 0.5))  # the noise is gone in the small view
    assert (net(noisy) - net(clean)).abs().max() > 1e-2


def test_checkpoint_knows_its_classes_and_is_loaded_by_name():
    torch.manual_seed(0)
    old = DegradationEstimator(classes=["rain", "haze"], preset="tiny").eval()
    state = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    assert stored_classes(state, "e.pth") == ["rain", "haze"]
    new = DegradationEstimator(classes=["haze", "snow", "rain"], preset="tiny").eval()
    new.load_by_name(state, "e.pth", added=["snow"])
    assert new.classes == ["haze", "snow", "rain"]
    assert torch.equal(new.head.weight[2], old.head.weight[0])
    assert torch.equal(new.head.weight[0], old.head.weight[1])
    x = torch.rand(1, 3, 20, 20)
    torch.testing.assert_close(new(x)[:, [2, 0]], old(x))


def test_other_classes_are_refused_and_both_sides_named():
    old = DegradationEstimator(classes=["rain", "haze"], preset="tiny")
    new = DegradationEstimator(classes=["rain", "snow"], preset="tiny")
    with pytest.raises(CheckpointError, match=r"e.pth: .*trained for rain, haze; here it needs rain, snow"):
        new.load_by_name(old.state_dict(), "e.pth")
    with pytest.raises(CheckpointError, match="trained for rain, haze"):
        new.load_by_name(old.state_dict(), "e.pth", added=["snow"])  # haze would be lost
    with pytest.raises(CheckpointError, match="no checkpoint of a DegradationEstimator"):
        new.load_by_name({"weight": torch.zeros(1)}, "e.pth")
    wide = DegradationEstimator(classes=["rain", "snow"], preset="tiny", width=4)
    with pytest.raises(CheckpointError, match="not a checkpoint of this DegradationEstimator"):
        new.load_by_name(wide.state_dict(), "e.pth")
    with pytest.raises(OptionError, match="each once"):
        DegradationEstimator(classes=["a", "a"])
