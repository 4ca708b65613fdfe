"""``basicsr-plugins export``: what it prints, adapters merged with given weights, and what is wrong in one sentence."""

from __future__ import annotations

import copy
import os
import pathlib
import subprocess
import sys

import pytest
import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters import BlendedNetwork, find_adapters
from basicsr_plugins.archs.nafnet_arch import NAFNet
from basicsr_plugins.cli.main import main

ARGUMENTS = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
NETWORK_OPT = {"type": "NAFNet", **ARGUMENTS}


def export(*words):
    return main(["export", *map(str, words)])


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "run" / "models" / "net_g_latest.pth"
    path.parent.mkdir(parents=True)
    checkpoints.write(path, NAFNet(**ARGUMENTS).state_dict(), NETWORK_OPT)
    return path


def test_what_is_printed(model, tmp_path, capsys):
    assert export(model, tmp_path / "net.pt") == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'net.pt'}: NAFNet of {model} (torchscript, fp32" in said
    assert "largest difference from PyTorch in fp32: 0.0e+00 (allowed: 0.0001)" in said
    assert "any height and width; any number of images at once" in said
    pytest.importorskip("onnxruntime")
    assert export(model, tmp_path / "net.onnx", "--opset", "16") == 0
    assert "ONNX, opset 16, fp32" in capsys.readouterr().out


def test_a_run_and_a_format_by_name(model, tmp_path, capsys):
    assert export(model.parents[1], tmp_path / "net.bin", "--format", "torchscript", "--precision", "bf16") == 0
    assert "(torchscript, bf16" in capsys.readouterr().out
    assert torch.jit.load(tmp_path / "net.bin")(torch.rand(1, 3, 9, 20)).shape == (1, 3, 9, 20)


def test_a_network_that_enlarges_says_so(tmp_path, capsys):
    from basicsr.archs.rrdbnet_arch import RRDBNet

    arguments = {"num_in_ch": 3, "num_out_ch": 3, "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
    checkpoints.write(tmp_path / "net.pth", RRDBNet(**arguments).state_dict(), {"type": "RRDBNet", **arguments})
    assert export(tmp_path / "net.pth", tmp_path / "net.pt") == 0
    assert "(padded inside to multiples of 2), enlarged 2 times" in capsys.readouterr().out


@pytest.fixture
def adapters(base_with_adapters, tmp_path):
    """The base with its two adapters."""
    return BlendedNetwork(copy.deepcopy(base_with_adapters), find_adapters(tmp_path / "adapters")).eval()


def test_adapters_are_merged_with_the_weights_that_are_given(adapters, tmp_path):
    folder, images = tmp_path / "adapters", torch.rand(1, 3, 21, 30)
    assert adapters.names == ["haze", "rain"]
    with torch.no_grad():
        only = adapters(images, torch.tensor([[0.0, 1.0]]))
        both = adapters(images, torch.tensor([[0.25, 0.5]]))
    assert not torch.allclose(only, both, atol=1e-3)
    assert export(folder, tmp_path / "only.pt", "--only", "rain") == 0
    assert export(folder / "rain", tmp_path / "one.pt") == 0
    assert export(folder, tmp_path / "both.pt", "--weights", "rain=0.5,haze=0.25") == 0
    assert export(folder, tmp_path / "both.safetensors", "--weights", "rain=0.5,haze=0.25") == 0
    for name, wanted in (("only", only), ("one", only), ("both", both)):
        torch.testing.assert_close(torch.jit.load(tmp_path / f"{name}.pt")(images), wanted, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        again = checkpoints.load(tmp_path / "both.safetensors")(images)
    torch.testing.assert_close(again, both, atol=1e-5, rtol=1e-4)


def test_a_blend_is_no_plain_network(adapters, tmp_path, capsys):
    assert export(tmp_path / "adapters", tmp_path / "net.onnx") == 1
    said = capsys.readouterr().err
    assert "--only haze, or --weights haze=0.7,rain=0.3" in said
    assert said.count("\n") == 1
    assert export(tmp_path / "adapters", tmp_path / "net.pt", "--only", "rian") == 1
    assert "Did you mean 'rain'" in capsys.readouterr().err
    assert export(tmp_path / "adapters", tmp_path / "net.pt", "--only", "rain", "--weights", "rain=1") == 1
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nett.pth", "net.pt"], "neither a file nor a folder nett.pth"),
        (["net.pth", "net"], "does not end in"),
        (["net.pth", "out/net.pt"], "the folder out does not exist"),
        (["net.pth", "net.pt", "--precision", "int8"], "unknown precision 'int8'"),
        (["net.pth", "net.pt", "--weights", "rain"], "NAME=NUMBER"),
        (["net.pth", "net.pth", "--format", "torchscript"], "exists already"),
        (["net.pth", "folder", "--format", "torchscript"], "is a folder"),
    ],
)
def test_one_sentence_for_what_is_wrong(model, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    model.rename(tmp_path / "net.pth")
    assert export(*words) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX")
@pytest.mark.parametrize("ending", ["safetensors", "pt", "onnx"])
def test_a_folder_that_cannot_be_written(model, tmp_path, capsys, ending):
    if ending == "onnx":
        pytest.importorskip("onnxruntime")
    if os.geteuid() == 0:
        folder = pathlib.Path("/proc")  # the superuser may write everywhere else
    else:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
    assert export(model, folder / f"net.{ending}") == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="Linux")
@pytest.mark.parametrize("ending", ["pt", "onnx"])
def test_a_full_disk(model, tmp_path, monkeypatch, capsys, ending):
    if ending == "onnx":
        pytest.importorskip("onnxruntime")
    mkdir = pathlib.Path.mkdir

    def with_a_full_file(self, *args, **kwargs):
        mkdir(self, *args, **kwargs)
        if self.name.endswith(".incomplete"):
            (self / f"net.{ending}").symlink_to("/dev/full")

    monkeypatch.setattr(pathlib.Path, "mkdir", with_a_full_file)
    before = sorted(tmp_path.rglob("*"))
    assert export(model, tmp_path / f"net.{ending}") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_help_loads_neither_torch_nor_onnx():
    code = (
        "import sys; from basicsr_plugins.cli.main import main\n"
        "try: main(['export', '--help'])\n"
        "except SystemExit: print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "restored" in done.stdout
    assert done.stdout.strip().endswith("[]")
