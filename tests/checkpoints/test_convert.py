"""Published key names in, our names out: strict loading, the published numbers, and clear refusals."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "archs"))
from golden import largest_error, load_case, seeded_input, seeded_state

from basicsr_plugins import checkpoints
from basicsr_plugins.cli import convert as cli
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.core.registration import provided

ROOT = Path(__file__).resolve().parents[2]
# source of the weights, our network: for each golden case that a converter has to bring home
CASES = {
    "dcpt_restormer": ("dcpt", "Restormer", {}),
    "dcpt_promptir": ("dcpt", "PromptIR", {}),
    "dcpt_nafnet": ("dcpt", "NAFNet", {}),
    "dcpt_swinir": ("dcpt", "SwinIR", {}),
    "dcpt_classifier": ("dcpt", "DegradationClassifier", {}),
    "restormer_small_biasfree": ("official", "Restormer", {}),
    "nafnet_tlc_w8": ("official", "NAFNetLocal", {"train_size": [1, 3, 32, 32]}),
    "promptir_default": ("official", "PromptIR", {}),
    "ffanet_default": ("official", "FFANet", {}),
    "dehazeformer_t": ("official", "DehazeFormer", {}),
    "idt_default": ("official", "IDT", {}),
}


def build(network_opt):
    options = dict(network_opt)
    name = options.pop("type")
    if name == "SwinIR":
        from basicsr.archs.swinir_arch import SwinIR

        return SwinIR(**options).eval()
    return provided("arch")[name](**options).eval()


def tiny(name="NAFNet", **kwargs):
    return provided("arch")[name](preset="tiny", **kwargs)


def complete(meta):
    """The state dict of a case, with the buffers that its source would also have saved."""
    state = seeded_state(meta)
    if meta["buffers"]:
        own = provided("arch")[meta["arch"]](**meta["kwargs"]).state_dict()
        state.update({key: own[key] for key, _ in meta["buffers"]})
    return state


@pytest.mark.parametrize("case", CASES)
def test_golden_through_the_converter(case):
    source, network, further = CASES[case]
    meta, expected = load_case(case)
    network_opt, weights = checkpoints.convert({"params": complete(meta)}, source, network, **further)
    built = build(network_opt)
    built.load_state_dict(weights)  # strict
    if network == "DegradationClassifier":
        assert network_opt["feature_dims"] == meta["kwargs"]["feature_dims"]
        return
    with torch.no_grad():
        assert largest_error(built(seeded_input(meta)), expected) <= 1e-4


@pytest.mark.parametrize("case", sorted(set(CASES) - {"nafnet_tlc_w8", "dcpt_classifier"}))
def test_golden_straight_from_a_published_file(tmp_path, case):
    meta, expected = load_case(case)
    torch.save({"params": complete(meta)}, tmp_path / "published.pth")
    network = checkpoints.load(tmp_path / "published.pth")
    assert not network.training
    with torch.no_grad():
        assert largest_error(network(seeded_input(meta)), expected) <= 1e-4


def test_dcpt_restormer_gets_the_switches_that_no_shape_shows():
    meta, _ = load_case("dcpt_restormer")
    network_opt, _ = checkpoints.convert(seeded_state(meta), "dcpt", "Restormer")
    assert network_opt == {
        "type": "Restormer",
        "attention": "relu",
        "eps": 1e-6,
        "block_bias": False,
        "LayerNorm_type": "BiasFree",
    }


def test_dcpt_weights_get_the_layers_that_nothing_uses():
    meta, expected = load_case("dcpt_promptir")
    network_opt, weights = checkpoints.convert(seeded_state(meta), "dcpt", "PromptIR", unused_layers=False)
    assert set(weights) == set(seeded_state(meta))
    assert network_opt["unused_layers"] is False
    network_opt, weights = checkpoints.convert(seeded_state(meta), "dcpt", "PromptIR")
    assert set(weights) - set(seeded_state(meta)) == {
        f"{layer}.weight" for layer in provided("arch")["PromptIR"].unused_parameters
    }
    network = build(network_opt)
    network.load_state_dict(weights)
    with torch.no_grad():
        assert largest_error(network(seeded_input(meta)), expected) <= 1e-4


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("Restormer", {"LayerNorm_type": "BiasFree", "bias": True}),
        ("Restormer", {"inp_channels": 6, "dual_pixel_task": True}),
        ("Restormer", {"scale": 2, "ffn_expansion_factor": 2.0}),
        ("PromptIR", {}),
        ("NAFNet", {"img_channel": 1, "enc_blk_nums": [2, 1], "dec_blk_nums": [1, 3]}),
        ("FFANet", {}),
        ("DehazeFormer", {}),
        ("DehazeFormer", {"conv_type": ["Conv"] * 5, "window_size": 4}),
        ("IDT", {"embed_dim": 4, "num_heads": [1] * 9, "qkv_bias": False}),
        ("DCPTSwinIR", {"embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3], "img_size": 16, "position_bias": True}),
        ("DCPTSwinIR", {"embed_dim": 12, "depths": [2, 1], "num_heads": [6, 6], "upsampler": "nearest+conv",
                        "upscale": 2, "resi_connection": "3conv"}),
    ],
)  # fmt: skip
def test_the_variant_is_read_from_the_weights(name, kwargs):
    network = provided("arch")[name](**kwargs) if name == "DCPTSwinIR" else tiny(name, **kwargs)
    network_opt, weights = checkpoints.convert(network.state_dict(), "official", name)
    again = build(network_opt)
    again.load_state_dict(weights)
    assert network_opt["type"] == name
    x = torch.rand(1, kwargs.get("inp_channels", kwargs.get("img_channel", 3)), 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(x), network.eval()(x))


def test_stock_swinir_of_another_image_size():
    from basicsr.archs.swinir_arch import SwinIR

    settings = {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4, "mlp_ratio": 2.0}
    stock = SwinIR(img_size=16, upscale=4, upsampler="pixelshuffle", **settings).eval()
    network_opt, weights = checkpoints.convert(stock.state_dict(), "official", "SwinIR", img_size=8)
    assert (network_opt["img_size"], network_opt["upscale"]) == (8, 4)
    again = build(network_opt)
    again.load_state_dict(weights)
    x = torch.rand(1, 3, 12, 20)
    with torch.no_grad():
        torch.testing.assert_close(again(x), stock(x))


@pytest.mark.parametrize("wrap", [
    lambda state: {"params": {}, "params_ema": state},
    lambda state: {"state_dict": {f"net.{key}": value for key, value in state.items()}, "epoch": 3},
    lambda state: {"model": {f"module.{key}": value for key, value in state.items()}, "step": 7},
    lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
])  # fmt: skip
def test_containers_are_unwrapped(wrap):
    state = tiny().state_dict()
    found = checkpoints.find_weights(wrap(state))
    assert list(found) == list(state)
    assert all(found[key] is state[key] for key in state)


def test_an_entry_can_be_named():
    ours, theirs = {"a": torch.ones(1)}, {"a": torch.zeros(1)}
    assert checkpoints.find_weights({"params": ours, "params_ema": theirs})["a"] == 0
    assert checkpoints.find_weights({"params": ours, "params_ema": theirs}, "params")["a"] == 1
    with pytest.raises(CheckpointError, match="Did you mean 'params'"):
        checkpoints.find_weights({"params": ours}, "parms")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_round_trip(tmp_path, suffix):
    shared = torch.rand(4, 3)
    state = {"a": shared, "b": shared[:2], "c": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    path = tmp_path / f"weights{suffix}"
    checkpoints.write(path, state, {"type": "NAFNet"})
    found = checkpoints.read(path)
    assert all(torch.equal(found[key], value) for key, value in state.items())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix == ".pth":
        content = torch.load(path, weights_only=True)
        assert list(content) == ["params", "network", "basicsr_plugins"]
        assert content["network"] == {"type": "NAFNet"}


def test_numpy_numbers_and_namespaces_beside_the_weights_are_read(tmp_path):
    path = tmp_path / "ffa.pk"
    extra = {"psnrs": [np.float64(31.5)], "max_ssim": np.float32(0.9), "hparams": argparse.Namespace(cuda=0)}
    torch.save({"model": {"module.a": torch.ones(2)}, **extra}, path)
    assert torch.equal(checkpoints.read(path)["a"], torch.ones(2))


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_pickled_objects_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"params": {"a": torch.ones(1)}, "extra": Harmful()}, "bad.pth")
    with pytest.raises(CheckpointError, match="refused"):
        checkpoints.read("bad.pth")
    torch.save(nn.Linear(1, 1), "module.pth")
    with pytest.raises(CheckpointError, match="refused"):
        checkpoints.read("module.pth")
    assert not Path("harmed").exists()


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
def test_files_that_are_no_checkpoints(tmp_path, name):
    (tmp_path / name).write_text("not a checkpoint at all")
    with pytest.raises(CheckpointError, match=name):
        checkpoints.read(tmp_path / name)
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        checkpoints.read(tmp_path / f"missing{name}")


def test_entries_that_are_no_tensors():
    with pytest.raises(CheckpointError, match="'b' \\(str\\)"):
        checkpoints.find_weights({"a": torch.ones(1), "b": "text"})
    with pytest.raises(CheckpointError, match="no weights"):
        checkpoints.find_weights({"epoch": 1})


def test_weights_of_another_network():
    state = tiny("Restormer").state_dict()
    with pytest.raises(CheckpointError, match=r"look like the official Restormer, not like NAFNet.*network: Restormer"):
        checkpoints.convert(state, "official", "NAFNet")
    with pytest.raises(CheckpointError, match=r"source: official and network: Restormer"):
        checkpoints.convert(state, "dcpt", "Restormer")
    meta, _ = load_case("dcpt_swinir")
    with pytest.raises(CheckpointError, match=r"DCPT's SwinIR.*source: dcpt and network: SwinIR"):
        checkpoints.convert(seeded_state(meta), "official", "SwinIR")
    with pytest.raises(CheckpointError, match="nor of any network known here"):
        checkpoints.convert({"fc.weight": torch.ones(1)}, "official", "NAFNet")


def test_weights_of_another_variant():
    state = tiny("Restormer", LayerNorm_type="BiasFree").state_dict()
    with pytest.raises(CheckpointError, match="Set LayerNorm_type: BiasFree"):
        checkpoints.convert(state, "official", "Restormer", LayerNorm_type="WithBias")
    with pytest.raises(CheckpointError, match="look like dim: 8; asked for was dim: 48"):
        checkpoints.convert(state, "official", "Restormer", dim=48)
    with pytest.raises(OptionError, match="Did you mean 'use_checkpoint'"):
        checkpoints.convert(state, "official", "Restormer", use_chekpoint=True)


def test_incomplete_weights():
    state = tiny("Restormer").state_dict()
    state.pop("decoder_level2.0.attn.qkv.weight")
    with pytest.raises(CheckpointError, match=r"1 missing: decoder_level2.0.attn.qkv.weight"):
        checkpoints.convert(state, "official", "Restormer")
    state["surplus"] = torch.ones(1)
    with pytest.raises(CheckpointError, match="1 unexpected: surplus"):
        checkpoints.convert(state, "official", "Restormer")
    only_the_end = {key: value for key, value in state.items() if not key.startswith("encoder")}
    with pytest.raises(CheckpointError, match="cut off"):
        checkpoints.convert(only_the_end, "official", "Restormer")


def test_load_says_what_to_set():
    network = tiny("Restormer")
    checkpoints.load(network, {"params": tiny("Restormer").state_dict()})
    with pytest.raises(CheckpointError, match="Set LayerNorm_type: BiasFree"):
        checkpoints.load(network, tiny("Restormer", LayerNorm_type="BiasFree").state_dict())
    with pytest.raises(CheckpointError, match="look like the official NAFNet, not like Restormer"):
        checkpoints.load(network, tiny("NAFNet").state_dict())
    with pytest.raises(CheckpointError, match="1 missing: weight"):
        checkpoints.load(nn.Linear(2, 2), {"bias": torch.zeros(2)})


def test_unknown_names():
    with pytest.raises(OptionError, match="Did you mean 'Restormer'"):
        checkpoints.convert({}, "dcpt", "Restorner")
    with pytest.raises(OptionError, match="Allowed: official, dcpt"):
        checkpoints.convert({}, "github", "Restormer")


def run_cli(*arguments):
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["convert", *map(str, arguments)])
    return args.func(args)


def test_command_line(tmp_path, capsys):
    network = tiny("NAFNet")
    torch.save({"params": network.state_dict()}, tmp_path / "in.pth")
    assert run_cli(tmp_path / "in.pth", tmp_path / "out.safetensors", "--set", "use_checkpoint=true") == 0
    network_opt = yaml.safe_load(capsys.readouterr().out)["network_g"]
    assert network_opt["use_checkpoint"] is True
    again = build(network_opt)
    again.load_state_dict(checkpoints.read(tmp_path / "out.safetensors"))
    assert (
        run_cli(tmp_path / "out.safetensors", tmp_path / "back.pth", "--network", "NAFNet", "--from", "official") == 0
    )
    back = torch.load(tmp_path / "back.pth", weights_only=True)["params"]
    assert all(torch.equal(back[key], value) for key, value in network.state_dict().items())
    with pytest.raises(OptionError, match="KEY=VALUE"):
        run_cli(tmp_path / "in.pth", tmp_path / "out.pth", "--set", "dim")


def test_command_line_moves_a_network_that_the_file_names(tmp_path, capsys):
    network = provided("arch")["ABAIRNet"](preset="tiny")
    checkpoints.write(tmp_path / "in.pth", network.state_dict(), {"type": "ABAIRNet", "preset": "tiny"})
    assert run_cli(tmp_path / "in.pth", tmp_path / "out.safetensors") == 0
    assert yaml.safe_load(capsys.readouterr().out)["network_g"] == {"type": "ABAIRNet", "preset": "tiny"}
    again = checkpoints.load(tmp_path / "out.safetensors").state_dict()
    assert all(torch.equal(again[key], value) for key, value in network.state_dict().items())


def test_reading_needs_no_basicsr():
    code = "import sys; from basicsr_plugins import checkpoints; assert 'basicsr' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", ["dcpt_nafnet", "restormer_small_biasfree", "swinir"])
def test_exported_files_in_spandrel(tmp_path, case, suffix):
    spandrel = pytest.importorskip("spandrel")
    registry = spandrel.ModelLoader().registry
    if case.startswith("restormer"):
        registry = spandrel.ArchRegistry()
        registry.add(*spandrel.MAIN_REGISTRY)
        registry.add(*pytest.importorskip("spandrel_extra_arches").EXTRA_REGISTRY)
    if case == "swinir":
        from basicsr.archs.swinir_arch import SwinIR

        network = SwinIR(img_size=16, window_size=8, embed_dim=12, depths=[2, 2], num_heads=[2, 2], mlp_ratio=2.0,
                         upscale=2, upsampler="pixelshuffle")  # fmt: skip
        state, source, name = network.state_dict(), "official", "SwinIR"
    else:
        meta, _ = load_case(case)
        state, (source, name, _) = seeded_state(meta), CASES[case]
    network_opt, weights = checkpoints.convert(state, source, name)
    path = tmp_path / f"exported{suffix}"
    checkpoints.write(path, weights, network_opt)
    loaded = spandrel.ModelLoader(registry=registry).load_from_file(path)
    assert loaded.architecture.id == name
    ours = build(network_opt)
    ours.load_state_dict(weights)
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        expected = loaded.model.eval()(x)
        assert largest_error(ours(x), expected) <= 1e-4
