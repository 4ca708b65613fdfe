"""What holds for every network: any size, any batch, half precision, compile, gradients, checkpointing, presets."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
import yaml

from basicsr_plugins.archs.feature_presets import preset_layers
from basicsr_plugins.archs.layers import ChannelLayerNorm
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import check_call
from basicsr_plugins.core.registration import provided

#: Arguments of a small variant, for networks without a preset called tiny.
SMALL = {
    "DCPTSwinIR": {"img_size": 16, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2]},
    "RestorationResNet": {"num_feat": 8, "num_block": 2},
    "UNet": {"num_feat": 8, "num_level": 2},
}
#: Further arguments of the tiny preset.
BESIDE_TINY = {"NAFNetLocal": {"train_size": [1, 3, 32, 32]}}
#: Networks that do not map an image to an image of its size, and who tests them.
NO_RESTORERS = {
    "DegradationClassifier": "test_other_archs.py",
    "DegradationEstimator": "test_abair_arch.py",
    "SegmentationHead": "test_abair_arch.py",
    "VQGAN": "test_vqgan_arch.py",
}


def small_arguments(name):
    """Return the arguments of a small variant: a new network joins by a preset called tiny or an entry in SMALL."""
    if "tiny" in getattr(provided("arch")[name], "presets", {}):
        return {"preset": "tiny", **BESIDE_TINY.get(name, {})}
    return SMALL.get(name)


NETWORKS = {name: small_arguments(name) for name in sorted(provided("arch")) if name not in NO_RESTORERS}
# bf16 keeps 8 bits: the largest deviation from float32 as a share of the largest output; twice what was observed
BF16_TOLERANCE = 0.01


def build(name, **kwargs):
    torch.manual_seed(0)
    network = provided("arch")[name](**{**NETWORKS[name], **kwargs})
    for key, value in network.named_parameters():
        if key.endswith((".beta", ".gamma")):  # NAFNet's branches start at zero, which would hide everything in them
            torch.nn.init.constant_(value, 0.5)
    return network.eval()


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


def test_every_registered_network_is_here():
    missing = [name for name, arguments in NETWORKS.items() if arguments is None]
    assert not missing, f"give {missing} a preset called tiny, or arguments in SMALL, or a line in NO_RESTORERS"
    assert set(NO_RESTORERS) <= set(provided("arch"))


def test_odd_sizes_and_batches(name):
    network = build(name)
    x = torch.rand(3, 3, 37, 53)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(image[None]) for image in x])
    assert together.shape == x.shape
    assert together.is_contiguous()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (5, 90)])
def test_sizes_below_the_smallest(name, size):
    with torch.no_grad():
        out = build(name)(torch.rand(1, 3, *size))
    assert out.shape[-2:] == size
    assert out.isfinite().all()


def test_bf16_autocast(name):
    network = build(name)
    x = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x)
    assert (half.float() - exact).abs().max() <= BF16_TOLERANCE * exact.abs().max()


def test_the_memory_format_of_the_input_does_not_matter(name):
    network = build(name)
    x = torch.rand(2, 3, 40, 48)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(x.to(memory_format=torch.channels_last)), atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_parameter_that_is_used(name):
    kwargs = {"drop_path_rate": 0.0} if name == "IDT" else {}
    network = build(name, **kwargs).train()
    size = 64 if name == "IDT" else 40
    network(torch.rand(2, 3, size, size)).square().mean().backward()
    without = {key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()}
    if name == "IDT":
        # squares of 64 leave one patch to these two cross blocks: there is nothing to attend to but itself
        alone = ("encoderlayer_3.blocks.2.attn.", "decoderlayer_0.blocks.1.attn.")
        logits = ("relative_position_bias_table", "qkv.to_q.weight", "qkv.to_q.bias")
        assert without == {block + key for block in alone for key in logits}
    else:
        assert without == set()


def test_the_unused_parameters_of_promptir_are_listed_and_take_no_gradient():
    network = build("PromptIR", unused_layers=True)
    network(torch.rand(1, 3, 16, 16)).mean().backward()
    without = {key for key, value in network.named_parameters() if value.grad is None}
    assert {key.split(".")[0] for key in without} == set(type(network).unused_parameters)
    assert not any(value.requires_grad for key, value in network.named_parameters() if key in without)


def test_a_constant_input_gives_finite_gradients(name):
    network = build(name)
    x = torch.zeros(1, 3, 32, 32, requires_grad=True)
    network(x).sum().backward()
    assert x.grad.isfinite().all()
    assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)


def test_checkpointing_changes_nothing_but_memory(name):
    if "use_checkpoint" not in inspect.signature(provided("arch")[name]).parameters:
        pytest.skip("a small network of the studies, without recomputation")
    x = torch.rand(1, 3, 64, 64)
    results = []
    saved = []
    for recompute in (False, True):
        kwargs = {"drop_path_rate": 0.0} if name == "IDT" else {}
        network = build(name, use_checkpoint=recompute, **kwargs).train()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            loss = network(x).square().mean()
        saved.append(sum(kept))
        loss.backward()
        results.append([value.grad for value in network.parameters() if value.grad is not None])
    torch.testing.assert_close(results[0], results[1])
    assert saved[1] < 0.7 * saved[0]


def test_copies_and_state_dicts_are_independent(name):
    network = build(name)
    twin = copy.deepcopy(network)
    x = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        before = network(x)
        for value in twin.parameters():
            value.zero_()
        torch.testing.assert_close(network(x), before)


@pytest.mark.slow
def test_compile_without_graph_breaks(name):
    network = build(name)
    x = torch.rand(1, 3, 64, 64) if name == "IDT" else torch.rand(1, 3, 40, 56)
    try:
        compiled = torch.compile(network, fullgraph=True, backend="eager")  # graph breaks alone
        with torch.no_grad():
            out = compiled(x)
    finally:
        torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(out, network(x), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_compile_with_inductor():
    import shutil

    if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
        pytest.skip("torch.compile needs a C++ compiler")
    block = build("Restormer").latent[0]
    x = torch.rand(1, 64, 8, 8).to(memory_format=torch.channels_last)
    with torch.no_grad():
        try:
            out = torch.compile(block, fullgraph=True)(x)
        finally:
            torch._dynamo.reset()
        torch.testing.assert_close(out, block(x), atol=1e-5, rtol=1e-4)


def test_feature_layers_exist_and_are_finest_first(name):
    network = build(name)
    if name in ("RestorationResNet", "UNet"):
        pytest.skip("networks of the studies, which DCPT does not tap")
    layers = preset_layers(network)
    modules = dict(network.named_modules())
    sizes = {}
    for layer in layers:
        modules[layer].register_forward_hook(
            lambda module, args, out, layer=layer: sizes.update(
                {layer: out.shape[-2:] if out.dim() == 4 else out.shape[1:2]}
            )
        )
    with torch.no_grad():
        network(torch.rand(1, 3, 64, 64))
    pixels = [sizes[layer].numel() for layer in layers]
    assert len(layers) >= 1
    assert pixels == sorted(pixels, reverse=True)


def test_published_feature_layers():
    assert preset_layers(build("NAFNet")) == ("decoders.3", "decoders.2", "decoders.1", "decoders.0")
    assert preset_layers(build("Restormer")) == ("decoder_level1", "decoder_level2", "decoder_level3")
    assert preset_layers(build("PromptIR")) == ("reduce_noise_level1", "reduce_noise_level2", "reduce_noise_level3")
    assert preset_layers(build("DCPTSwinIR", depths=[1] * 6, num_heads=[2] * 6)) == ("layers.5", "layers.4", "layers.3")


def test_feature_layers_of_stock_networks():
    from basicsr.archs.rcan_arch import RCAN
    from basicsr.archs.swinir_arch import SwinIR

    swinir = SwinIR(img_size=8, window_size=8, embed_dim=4, depths=[1] * 6, num_heads=[1] * 6)
    assert preset_layers(swinir) == ("layers.5", "layers.4", "layers.3")
    rcan = RCAN(3, 3, num_feat=4, num_group=10, num_block=1, squeeze_factor=2, upscale=2)
    assert preset_layers(rcan) == ("body.9", "body.8", "body.7", "body.6", "body.5")
    with pytest.raises(OptionError, match="no preset for Linear"):
        preset_layers(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("kind", ["Restormer", "PromptIR", "NAFNet", "NAFNetLocal", "FFANet", "DehazeFormer", "IDT"])
def test_presets_build_and_can_be_varied(kind):
    network = provided("arch")[kind]
    for preset in network.presets:
        arguments = check_call(network, {"preset": preset, **network.presets[preset]}, "network_g")
        with torch.device("meta"):
            network(**arguments)
    varied = network(preset="tiny", use_checkpoint=True)
    assert any(getattr(module, "use_checkpoint", False) for module in varied.modules())
    with pytest.raises(OptionError, match="Did you mean 'tiny'"):
        network(preset="tini")
    with pytest.raises(OptionError, match="Did you mean 'use_checkpoint'"):
        check_call(network, {"use_checkpiont": True}, "network_g")


@pytest.mark.parametrize(
    ("kind", "preset", "millions"),
    [
        ("Restormer", "deraining", 26.126644), ("Restormer", "real_denoising", 26.111668),
        ("Restormer", "gaussian_gray_denoising", 26.109076), ("Restormer", "dual_pixel_defocus_deblurring", 26.132548),
        ("Restormer", "dcpt", 26.111668), ("PromptIR", "published", 35.592263), ("PromptIR", "dcpt", 35.376967),
        ("NAFNet", "gopro_width32", 17.111907), ("NAFNet", "gopro_width64", 67.888835),
        ("NAFNet", "sidd_width32", 29.159715), ("NAFNet", "sidd_width64", 115.982915), ("FFANet", "its", 4.455913),
        ("DehazeFormer", "T", 0.687404), ("DehazeFormer", "S", 1.284884), ("DehazeFormer", "B", 2.517612),
        ("DehazeFormer", "D", 4.983068), ("DehazeFormer", "W", 9.686724), ("DehazeFormer", "M", 4.635952),
        ("DehazeFormer", "L", 25.451652), ("IDT", "published", 16.416463),
    ],
)  # fmt: skip
def test_published_parameter_counts(kind, preset, millions):
    with torch.device("meta"):
        network = provided("arch")[kind](preset=preset)
    assert sum(value.numel() for value in network.parameters()) == round(millions * 1e6)


def test_published_parameter_count_of_dcpts_swinir():
    network = provided("arch")["DCPTSwinIR"]()
    assert sum(value.numel() for value in network.parameters()) == 11455563
    assert len(network.state_dict()) == 454


def test_docstring_examples_build():
    for kind, network in provided("arch").items():
        lines = [line.strip() for line in (inspect.getdoc(network) or "").splitlines()]
        example = next((line for line in lines if line.startswith(("network_g:", "network_dc:"))), None)
        if kind not in NETWORKS or example is None:
            continue
        options = next(iter(yaml.safe_load(example).values()))
        assert options.pop("type") == kind
        if kind != "DCPTSwinIR":
            with torch.device("meta"):
                network(**options)


@pytest.mark.parametrize(
    ("kind", "kwargs", "text"),
    [
        ("Restormer", {"num_blocks": [1, 2, 3]}, "four values"),
        ("Restormer", {"heads": [1, 2, 4, 5]}, "multiples of heads"),
        ("Restormer", {"LayerNorm_type": "Biasfree"}, "WithBias or BiasFree"),
        ("Restormer", {"attention": "sigmoid"}, "softmax or relu"),
        ("Restormer", {"scale": 3}, "1, 2 or 4"),
        ("Restormer", {"inp_channels": 6}, "dual_pixel_task"),
        ("PromptIR", {"decoder": False}, "only true"),
        ("PromptIR", {"prompt_dims": [64, 128]}, "three values"),
        ("NAFNet", {"enc_blk_nums": [1, 1], "dec_blk_nums": [1]}, "one value per level"),
        ("NAFNet", {"padding": "mirror"}, "zeros or reflect"),
        ("NAFNetLocal", {"fast_imp": True}, "only false"),
        ("NAFNetLocal", {"train_size": [256, 256]}, "four positive"),
        ("FFANet", {"gps": 2}, "3 groups"),
        ("DehazeFormer", {"embed_dims": [24, 48, 96, 48, 32]}, "mirror"),
        ("DehazeFormer", {"depths": [1, 1]}, "five in all"),
        ("DehazeFormer", {"conv_type": [None] * 5}, "needs attention in every block"),
        ("IDT", {"img_size": 100}, "a multiple of 64"),
        ("IDT", {"overlap": 128}, "0 to 127"),
        ("DCPTSwinIR", {"num_heads": [7] * 6}, "does not split"),
        ("DCPTSwinIR", {"upsampler": "nearest+conv", "upscale": 3}, "2 or 4"),
    ],
)
def test_arguments_that_do_not_fit(kind, kwargs, text):
    with pytest.raises(OptionError, match=text):
        provided("arch")[kind](**kwargs)


def test_on_a_gpu_nothing_is_mixed_or_waited_for(name):
    from device_tags import PretendedGPU

    orders: list[bool] = []
    with PretendedGPU() as gpu:
        network = build(name).to("cuda")
        has_norm = any(isinstance(module, ChannelLayerNorm) for module in network.modules())
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d) and module.groups > 1 and has_norm:
                module.register_forward_pre_hook(lambda _, inputs: orders.append(inputs[0].is_contiguous()))
        image = torch.rand(1, 3, 32, 32, device="cuda")
        network(image)
        gpu.happened = gpu.kinds("mix")
        network(image).mean().backward()
    assert gpu.happened == []
    assert all(orders), "PyTorch's own float32 kernels of depth-wise convolutions do not take channels-last maps"
