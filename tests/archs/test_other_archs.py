"""NAFNet, TLC, FFA-Net, DehazeFormer, IDT, DCPT's SwinIR, the classifier and the padding, feature by feature."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references.nafnet_reference import PlainNAFNet

from basicsr_plugins.archs.degradation_classifier_arch import DegradationClassifier
from basicsr_plugins.archs.dehazeformer_arch import DehazeFormer, smallest_side, window_pads
from basicsr_plugins.archs.ffanet_arch import FFANet
from basicsr_plugins.archs.idt_arch import IDT
from basicsr_plugins.archs.layers import DropPath
from basicsr_plugins.archs.nafnet_arch import LocalAvgPool2d, NAFNet, NAFNetLocal
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import pad_to_multiple
from basicsr_plugins.core.registration import provided


def randomise(network):
    torch.manual_seed(0)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return network.eval()


# --- padding


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 9), (8, 16), (13, 10)])
def test_padding_reflects_as_far_as_legal_and_then_repeats(size):
    x = torch.rand(1, 2, *size)
    padded = pad_to_multiple(x, 8)
    for axis, side in enumerate(size, start=2):
        target = -(-side // 8) * 8
        assert padded.shape[axis] == target
        for position in range(target):
            mirrored = position if position < side else max(2 * side - 2 - position, 0)
            expected = x.index_select(axis, torch.tensor([mirrored]))
            found = padded.narrow(axis, position, 1)[..., : expected.shape[-2], : expected.shape[-1]]
            assert torch.equal(found, expected)
    if size == (8, 16):
        assert padded is x


def test_zero_padding_and_smallest_size():
    x = torch.ones(1, 1, 3, 5)
    padded = pad_to_multiple(x, 4, "zeros", at_least=8)
    assert padded.shape == (1, 1, 8, 8)
    assert padded.sum() == x.sum()


# --- NAFNet


@pytest.mark.parametrize("kwargs", [
    {"width": 6, "enc_blk_nums": [1, 2], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
    {"width": 4, "img_channel": 1, "enc_blk_nums": [], "middle_blk_num": 2, "dec_blk_nums": []},
])  # fmt: skip
def test_nafnet_equals_the_transcription(kwargs):
    plain = randomise(PlainNAFNet(**kwargs))
    network = NAFNet(**kwargs)
    network.load_state_dict(plain.state_dict())
    x = torch.rand(2, kwargs.get("img_channel", 3), 16, 24)
    ours, expected = network(x), plain(x)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    ours.square().mean().backward()
    expected.square().mean().backward()
    grads = dict(network.named_parameters())
    for key, value in plain.named_parameters():
        torch.testing.assert_close(grads[key].grad, value.grad, atol=1e-4 * value.grad.abs().max().item(), rtol=1e-3)


def test_nafnet_pads_zeros_or_reflects():
    x = torch.rand(1, 3, 13, 10)
    for padding, mode in (("zeros", "constant"), ("reflect", "reflect")):
        network = randomise(NAFNet(width=4, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1], padding=padding))
        with torch.no_grad():
            outside = network(F.pad(x, (0, 2, 0, 3), mode=mode))[..., :13, :10]
            torch.testing.assert_close(network(x), outside)


def slow_local_mean(x, kh, kw):
    """Mean of the window around each pixel, moved inside where it would cross the border."""
    h, w = x.shape[-2:]
    kh, kw = min(h, kh), min(w, kw)
    out = torch.empty_like(x)
    for row in range(h):
        top = min(max(row - (kh - 1) // 2, 0), h - kh)
        for column in range(w):
            left = min(max(column - (kw - 1) // 2, 0), w - kw)
            out[..., row, column] = x[..., top : top + kh, left : left + kw].mean(dim=(-2, -1))
    return out


@pytest.mark.parametrize("kernel", [(3, 5), (4, 6), (20, 4), (20, 20), (1, 1)])
def test_local_pooling_equals_the_loop(kernel):
    x = torch.rand(2, 3, 9, 12, dtype=torch.float64)
    found = LocalAvgPool2d(kernel)(x).expand_as(x)
    torch.testing.assert_close(found, slow_local_mean(x, *kernel))


def test_local_pooling_keeps_its_precision_on_large_maps():
    x = 1000 + torch.rand(1, 1, 600, 700)
    found = LocalAvgPool2d((64, 64))(x)
    expected = F.avg_pool2d(x.double(), 64, stride=1)
    top, left = 31, 31
    torch.testing.assert_close(found[..., top : top + 537, left : left + 637].double(), expected, atol=1e-3, rtol=0)


def test_local_network_equals_the_plain_one_up_to_its_window():
    settings = {"width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
    local = randomise(NAFNetLocal(**settings, train_size=[1, 3, 32, 32])).double()
    plain = NAFNet(**settings).double()
    plain.load_state_dict(local.state_dict())
    small, large = (torch.rand(1, 3, side, 48, dtype=torch.float64) for side in (48, 52))
    with torch.no_grad():
        torch.testing.assert_close(local(small), plain(small))
        assert (local(large) - plain(large)).abs().max() > 1e-6


def test_local_kernels_follow_the_padded_training_size():
    network = NAFNetLocal(
        width=4, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1], middle_blk_num=1, train_size=[2, 3, 30, 41]
    )
    kernels = {
        name: module.kernel_size for name, module in network.named_modules() if isinstance(module, LocalAvgPool2d)
    }
    # 30 x 41 is padded to 32 x 44; base 45 x 61
    assert kernels["encoders.0.0.sca.0"] == (32 * 45 // 30, 44 * 61 // 41)
    assert kernels["encoders.1.0.sca.0"] == (16 * 45 // 30, 22 * 61 // 41)
    assert kernels["middle_blks.0.sca.0"] == (8 * 45 // 30, 11 * 61 // 41)
    assert kernels["decoders.0.0.sca.0"] == kernels["encoders.1.0.sca.0"]
    assert not network.training


# --- FFA-Net, DehazeFormer


def test_ffanet_normalises_inside_where_asked():
    torch.manual_seed(0)
    raw = FFANet(preset="tiny").eval()
    inside = FFANet(preset="tiny", unit_range=True).eval()
    inside.load_state_dict(raw.state_dict())
    x = torch.rand(1, 3, 20, 20)
    mean, std = torch.tensor([0.64, 0.60, 0.58]), torch.tensor([0.14, 0.15, 0.152])
    with torch.no_grad():
        torch.testing.assert_close(inside(x), raw((x - mean[:, None, None]) / std[:, None, None]))


def test_dehazeformer_converts_ranges_inside_where_asked():
    torch.manual_seed(0)
    raw = DehazeFormer(preset="tiny").eval()
    inside = DehazeFormer(preset="tiny", unit_range=True).eval()
    inside.load_state_dict(raw.state_dict())
    x = torch.rand(1, 3, 32, 36)
    with torch.no_grad():
        torch.testing.assert_close(inside(x), raw(x * 2 - 1) * 0.5 + 0.5)


def test_dehazeformer_enlarges_only_what_the_published_one_refuses():
    # with windows of 8 the published network works from 25 pixels (28 after padding) upwards
    assert smallest_side(8, [16, 16, 16, 8, 8], [1 / 4, 1 / 2, 3 / 4, 0, 0], ["DWConv"] * 5) == 28
    assert smallest_side(8, [1] * 5, [0] * 5, ["DWConv"] * 5) == 12
    assert smallest_side(8, [1] * 5, [0] * 5, ["Conv"] * 5) == 8


@pytest.mark.parametrize("window", [4, 7, 8])
def test_shifted_windows_cover_the_map(window):
    for side in range(1, 40):
        for shift in (0, window // 2):
            before, after = window_pads(side, window, shift)
            assert before == shift
            assert (before + side + after) % window == 0
            assert after < window


# --- IDT


def test_idt_tiles_are_blended_as_published():
    torch.manual_seed(0)
    network = IDT(preset="tiny").eval()
    x = torch.rand(1, 3, 64, 120)
    with torch.no_grad():
        found = network(x)
        offsets = (torch.arange(64) - 32.0) ** 2
        weight = 1 / torch.sqrt(offsets[:, None] + offsets[None] + 1e-3)
        total, weights = torch.zeros_like(x), torch.zeros(64, 120)
        for left in (0, 56):  # stride 64 - 8; the last tile ends at the border
            total[..., left : left + 64] += network(x[..., left : left + 64]) * weight
            weights[:, left : left + 64] += weight
    torch.testing.assert_close(found, total / weights)


def test_idt_mask_keeps_marked_pixels_apart():
    torch.manual_seed(0)
    network = IDT(preset="tiny").eval()
    x = torch.rand(2, 3, 64, 64)
    mask = torch.zeros(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x, mask), network(x))
        mask[1, :, 8:20, 8:20] = 1
        masked = network(x, mask)
        torch.testing.assert_close(masked[:1], network(x[:1]), atol=1e-5, rtol=1e-4)
        assert (masked[1] - network(x)[1]).abs().max() > 0
    with pytest.raises(OptionError, match="only for images of 64 x 64"):
        network(torch.rand(1, 3, 64, 80), torch.zeros(1, 1, 64, 80))


def test_idt_stochastic_depth_follows_the_slices_of_the_schedule():
    network = IDT(img_size=64, embed_dim=4, num_heads=[1] * 9, drop_path_rate=0.7, depths=[2] * 9)
    rates = [
        [block.drop_path.rate for block in network.get_submodule(stage).blocks]
        for stage in ("encoderlayer_0", "encoderlayer_3", "bottle", "decoderlayer_0", "decoderlayer_3")
    ]
    schedule = [0.1 * step for step in range(8)]
    for found, (first, last) in zip(rates, ((0, 1), (6, 7), (7, 7), (7, 6), (1, 0))):
        assert found[0] == pytest.approx(schedule[first])
        assert found[-1] == pytest.approx(schedule[last])


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    drop = DropPath(0.25)
    torch.manual_seed(0)
    out = drop(torch.ones(4000, 3))
    torch.testing.assert_close(out.unique(), torch.tensor([0.0, 4 / 3]))
    assert (out.std(dim=1) == 0).all()
    assert out.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(torch.ones(2, 3)), torch.ones(2, 3))


# --- DCPT's SwinIR

SWIN = {"img_size": 16, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4, "mlp_ratio": 2.0}


@pytest.mark.parametrize("position_bias", [True, False])
@pytest.mark.parametrize("shift_mask", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_switches_of_dcpts_swinir_against_stock(position_bias, shift_mask, size):
    from basicsr.archs.swinir_arch import SwinIR

    stock = randomise(SwinIR(**SWIN, upscale=1, drop_path_rate=0.0))
    ours = provided("arch")["DCPTSwinIR"](**SWIN, position_bias=position_bias, shift_mask=shift_mask).eval()
    ours.load_state_dict({key: value for key, value in stock.state_dict().items() if key in ours.state_dict()})
    for module in stock.modules():  # switch the same things off in stock, from outside
        if not position_bias and hasattr(module, "relative_position_bias_table"):
            torch.nn.init.zeros_(module.relative_position_bias_table)
        if not shift_mask and getattr(module, "attn_mask", None) is not None:
            module.attn_mask.zero_()
            module.calculate_mask = lambda x_size, mask=module.calculate_mask: torch.zeros_like(mask(x_size))
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), stock(x), atol=1e-4, rtol=1e-4)
    assert any("relative_position" in key for key in ours.state_dict()) == position_bias
    assert any("attn_mask" in key for key in ours.state_dict()) == shift_mask


@pytest.mark.parametrize(("upsampler", "upscale"), [
    ("pixelshuffle", 2), ("pixelshuffle", 3), ("pixelshuffledirect", 2), ("nearest+conv", 2), ("nearest+conv", 4),
])  # fmt: skip
def test_heads_of_dcpts_swinir_leave_the_normalisation_on(upsampler, upscale):
    from basicsr.archs.swinir_arch import SwinIR

    settings = {**SWIN, "upsampler": upsampler, "upscale": upscale}
    ours = provided("arch")["DCPTSwinIR"](**settings, position_bias=True, shift_mask=True, img_range=2.0).eval()
    x = torch.rand(1, 3, 10, 14)
    with torch.no_grad():
        out = ours(x)
    assert out.shape == (1, 3, 10 * upscale, 14 * upscale)
    if (upsampler, upscale) == ("nearest+conv", 2):  # stock has no such head
        return
    stock = SwinIR(**settings, img_range=2.0).eval()
    stock.load_state_dict(ours.state_dict())
    x = torch.rand(1, 3, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(x) / 2 + stock.mean, stock(x), atol=1e-5, rtol=1e-4)


# --- the classifier


def test_classifier_mixes_features_of_other_than_square_sizes():
    network = DegradationClassifier([8, 12, 16], num_classes=4)
    features = [torch.rand(2, dim, 40 >> level, 24 >> level) for level, dim in enumerate((8, 12, 16))]
    assert network(features).shape == (2, 4)
    before = [feature.clone() for feature in features]
    network(features)
    assert all(torch.equal(*both) for both in zip(before, features))


def test_classifier_weighs_its_features_by_a_softmax():
    classifier = DegradationClassifier([4, 6], num_res_blocks=0)
    classifier.mixing_weights.data = torch.tensor([0.3, -1.0])
    first, second = torch.rand(2, 4, 16, 16), torch.rand(2, 6, 8, 8)
    shares = torch.tensor([0.3, -1.0]).exp() / torch.tensor([0.3, -1.0]).exp().sum()
    z = classifier.downsample_layers[0](first * shares[0])
    z = classifier.downsample_layers[1](z + second * shares[1])
    torch.testing.assert_close(classifier([first, second]), classifier.fc(z.mean(dim=(-2, -1))))


def test_classifier_takes_every_second_pixel_of_features_of_one_size():
    torch.manual_seed(0)
    same = DegradationClassifier([8, 8, 8], num_classes=3, downsample=True)
    halved = DegradationClassifier([8, 8, 8], num_classes=3)
    halved.load_state_dict(same.state_dict())
    features = [torch.rand(1, 8, 25, 18) for _ in range(3)]
    smaller = [F.interpolate(feature, scale_factor=1 / 2**level) for level, feature in enumerate(features)]
    torch.testing.assert_close(same(features), halved(smaller))


def test_slim_classifier_has_at_most_two_million_parameters():
    for dims in ([64, 128, 256, 512], [96, 96, 192], [96, 192, 192], [180] * 3, [64] * 5):
        network = DegradationClassifier(dims, num_classes=10, preset="slim")
        assert sum(value.numel() for value in network.parameters()) <= 2_000_000
        assert network([torch.rand(1, dim, 64 >> i, 48 >> i) for i, dim in enumerate(dims)]).shape == (1, 10)
    published = DegradationClassifier([64, 128, 256, 512], num_classes=5, preset="published")
    assert sum(value.numel() for value in published.parameters()) == 49290505
    assert len(published.state_dict()) == 97


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([(1, 8, 16, 16)], "expects 2 maps"),
        ([(1, 8, 16, 16), (1, 8, 8, 8)], "8, 12"),
        ([(1, 8, 16, 16), (1, 12, 16, 16)], "Set downsample: true"),
        ([(1, 8, 16, 16), (1, 12, 7, 8)], "should be"),
        ([(1, 8, 3, 16), (1, 12, 1, 8)], "at least 4 a side"),
        ([(1, 256, 8), (1, 64, 12)], "maps \\(n, c, h, w\\)"),
    ],
)
def test_features_that_do_not_fit(shapes, text):
    with pytest.raises(OptionError, match=text):
        DegradationClassifier([8, 12])([torch.rand(shape) for shape in shapes])


def test_dcpt_swinir_is_an_ordinary_class():
    import copy
    import pickle

    from basicsr_plugins.archs.dcpt_swinir_arch import DCPTSwinIR

    net = DCPTSwinIR(img_size=16, embed_dim=12, depths=(1, 1), num_heads=(2, 2), use_checkpoint=True).eval()
    image = torch.rand(1, 3, 20, 12)
    assert isinstance(net, DCPTSwinIR)
    for twin in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert torch.equal(twin(image), net(image))
    assert "mean" not in net.state_dict()
