"""``basicsr-plugins adapters``: list, merge, blend."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters import BlendedNetwork, attach_adapter, find_adapters
from basicsr_plugins.cli.main import main
from basicsr_plugins.core.registration import lookup

pytest.importorskip("peft")


@pytest.fixture
def made(tmp_path):
    """A base checkpoint, and two adapters of it in one folder."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GELU(), nn.Conv2d(8, 3, 1))
    path = tmp_path / "base.pth"
    torch.save({"params": net.state_dict()}, path)
    for name in ("rain", "haze"):
        adapter = attach_adapter(copy.deepcopy(net), {"r": 2}, network="Two", path=str(path))
        for parameter in adapter.parameters():
            parameter.data.normal_()
        adapter.save(tmp_path / "adapters" / name, name)
    return net, tmp_path


def test_list_names_every_adapter_and_its_base(made, capsys):
    _, folder = made
    assert main(["adapters", "list", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "method", "rank"]
    assert [line.split()[:5] for line in lines[1:]] == [
        ["haze", "lora", "2", "2", "44"],
        ["rain", "lora", "2", "2", "44"],
    ]
    assert find_adapters(folder / "adapters")["rain"].base in lines[2]
    assert main(["adapters", "list", str(folder / "nothing")]) == 1
    assert "there is no adapter here" in capsys.readouterr().err


def net_of(blended):
    """The base's state dict."""
    return blended.merged(torch.zeros(len(blended.names))).state_dict()


@pytest.mark.parametrize(
    ("weights", "vector"),
    [
        (["rain=0.25", "haze=0.5"], [0.5, 0.25]),
        (["average"], [0.5, 0.5]),
        (["sum"], [1.0, 1.0]),
        (["rain=1"], [0, 1]),
    ],
)
def test_blend_writes_a_plain_checkpoint(made, weights, vector):
    net, folder = made
    output = folder / "net_g_blend.pth"
    assert main(["adapters", "blend", str(folder / "adapters"), "--weights", *weights, "-o", str(output)]) == 0
    written = torch.load(output, weights_only=True)["params"]
    expected = BlendedNetwork(copy.deepcopy(net), find_adapters(folder / "adapters")).merged(torch.tensor(vector))
    assert list(written) == list(net.state_dict())
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(written[name], tensor, rtol=1e-5, atol=1e-6)


def test_merge_is_the_adapter_alone(made):
    net, folder = made
    output = folder / "net_g_rain.pth"
    assert main(["adapters", "merge", str(folder / "adapters" / "rain"), "-o", str(output)]) == 0
    plain = copy.deepcopy(net)
    plain.load_state_dict(torch.load(output, weights_only=True)["params"])
    x = torch.rand(1, 3, 5, 5)
    blended = BlendedNetwork(net, find_adapters(folder / "adapters"))
    torch.testing.assert_close(plain(x), blended(x, torch.tensor([[0.0, 1.0]])))
    # weaker, from the average in a copy of the file that lies elsewhere
    moved = folder / "elsewhere.pth"
    (folder / "base.pth").rename(folder / "gone.pth")
    zeros = {name: torch.zeros_like(value) for name, value in net_of(blended).items()}
    torch.save({"params": zeros, "params_ema": net_of(blended)}, moved)
    given = ["--weight", "0.5", "--base", str(moved), "--key", "params_ema"]
    assert main(["adapters", "merge", str(folder / "adapters" / "rain"), *given, "-o", str(output)]) == 0
    plain.load_state_dict(torch.load(output, weights_only=True)["params"])
    torch.testing.assert_close(plain(x), blended(x, torch.tensor([[0.0, 0.5]])))


def test_a_merged_file_says_which_network_it_holds(tmp_path):
    options = {"type": "NAFNet", "preset": "tiny"}
    net = lookup("arch", "NAFNet")(preset="tiny")
    checkpoints.write(tmp_path / "base.pth", net.state_dict(), options)
    adapter = attach_adapter(net, {"r": 2}, network="NAFNet", path=str(tmp_path / "base.pth"))
    adapter.save(tmp_path / "rain", "rain")
    output = tmp_path / "merged.safetensors"
    assert main(["adapters", "merge", str(tmp_path / "rain"), "-o", str(output)]) == 0
    assert type(checkpoints.load(output)) is type(net)


def test_bad_input_is_one_message(made, capsys):
    _, folder = made
    adapters, output = str(folder / "adapters"), ["-o", str(folder / "out.pth")]
    assert main(["adapters", "blend", adapters, "--weights", "rain", *output]) == 1
    assert "expected NAME=NUMBER (names: haze, rain)" in capsys.readouterr().err
    assert main(["adapters", "blend", adapters, "--weights", "fog=1", *output]) == 1
    assert "no adapter 'fog'; there are haze, rain" in capsys.readouterr().err
    other = folder / "other.pth"
    torch.save({"params": nn.Sequential(nn.Conv2d(3, 8, 1), nn.GELU(), nn.Conv2d(8, 3, 1)).state_dict()}, other)
    assert main(["adapters", "merge", f"{adapters}/rain", "--base", str(other), *output]) == 1
    error = capsys.readouterr().err
    assert "'rain'" in error
    assert "base.pth" in error
    assert "other.pth" in error
    assert not (folder / "out.pth").exists()


def test_other_methods_need_the_network(made, capsys):
    net, folder = made
    adapter = attach_adapter(copy.deepcopy(net), {"type": "vera", "r": 2}, path=str(folder / "base.pth"))
    adapter.save(folder / "vera", "vera")
    assert main(["adapters", "merge", str(folder / "vera"), "-o", str(folder / "out.pth")]) == 1
    assert "vera adapter, which PEFT itself has to merge" in capsys.readouterr().err


def test_the_option_file_says_which_network(tmp_path):
    torch.manual_seed(0)
    options = {"type": "UNet", "num_feat": 4, "num_level": 2}
    (tmp_path / "x.yml").write_text(f"network_g: {options}", encoding="utf-8")
    net = lookup("arch", "UNet")(num_feat=4, num_level=2).eval()
    torch.save({"params": net.state_dict()}, tmp_path / "base.pth")
    base, x = copy.deepcopy(net), torch.rand(1, 3, 8, 8)
    given = {"r": 2, "bias": "lora_only", "target": "all"}
    adapter = attach_adapter(net, given, path=str(tmp_path / "base.pth"))
    for parameter in adapter.parameters():
        parameter.data.normal_(std=0.3)
    adapter.save(tmp_path / "biased", "biased")
    output = tmp_path / "out.pth"
    words = ["adapters", "merge", str(tmp_path / "biased"), "--weight", "0.5", "-opt", str(tmp_path / "x.yml")]
    assert main([*words, "-o", str(output)]) == 0
    expected = BlendedNetwork(copy.deepcopy(base), find_adapters(tmp_path / "biased"))(x, torch.tensor([[0.5]]))
    base.load_state_dict(torch.load(output, weights_only=True)["params"])
    torch.testing.assert_close(base(x), expected, rtol=1e-4, atol=1e-5)


def test_a_stock_network_of_the_option_file_is_known_without_anything_registered_before(tmp_path):
    options = "{type: MSRResNet, num_feat: 8, num_block: 1, upscale: 2}"
    (tmp_path / "x.yml").write_text(f"network_g: {options}", encoding="utf-8")
    code = (
        "import pathlib, sys\n"
        "from basicsr_plugins.cli.adapters import _network\n"
        "assert type(_network(pathlib.Path(sys.argv[1]))).__name__ == 'MSRResNet'\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.yml")], check=True)
