"""Adapters through PEFT: attach, save, load with plain PEFT, merge, refuse what does not fit."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from basicsr_plugins.adapters import (
    BlendedNetwork,
    attach_adapter,
    find_adapters,
    fingerprint,
    load_adapter,
    read_folder,
)
from basicsr_plugins.adapters.attach import check_peft_options
from basicsr_plugins.adapters.folder import write_folder
from basicsr_plugins.adapters.peft_options import methods
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError

peft = pytest.importorskip("peft")
PEFT = tuple(int(part) for part in peft.__version__.split(".")[:2])


def train_a_little(adapter, steps=3):
    """Move every adapter parameter, so that a fresh no-op adapter becomes a real one."""
    for parameter in adapter.parameters():
        parameter.data += torch.randn_like(parameter) * 0.2
    return adapter


@pytest.fixture
def x():
    return torch.rand(2, 3, 8, 8)


def test_a_fresh_adapter_is_the_base_and_only_it_trains(net, x):
    expected = net(x)
    adapter = attach_adapter(net, {"r": 2})
    assert torch.equal(net(x), expected)
    net(x).sum().backward()
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert not any(p.grad is not None for name, p in net.named_parameters() if ".lora_" not in name)
    # rank 2: pointwise, attn_out and gate are 16 x 16; the default leaves 3x3 and depthwise convolutions alone
    assert sum(p.numel() for p in adapter.parameters()) == 3 * 2 * (16 + 16)
    assert {name.split(".")[0] for name in trained} == {"pointwise", "attn_out", "gate"}
    config = adapter.wrapped.peft_config["default"]
    assert (config.r, config.lora_alpha) == (2, 2)  # a scale of 1


def test_trying_a_method_on_convolutions_draws_nothing():
    from basicsr_plugins.adapters.peft_options import _configs, takes_convolutions

    before = torch.get_rng_state()
    assert takes_convolutions(_configs()["LORA"], {"r": 2})
    assert not takes_convolutions(_configs()["VERA"], {"r": 2})
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fingerprint_is_of_names_shapes_and_values():
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}
    own = fingerprint(weights)
    assert fingerprint({"b": weights["b"], "a": weights["a"].half()}) == own  # neither order nor type
    for other in (
        {"a": weights["a"].view(3, 2), "b": weights["b"]},
        {"c": weights["a"], "b": weights["b"]},
        {"a": weights["a"] + 1e-6 * (weights["a"] == 5), "b": weights["b"]},
    ):
        assert fingerprint(other) != own


def test_saved_folder_is_plain_peft(net, x, tmp_path):
    base = copy.deepcopy(net)
    adapter = train_a_little(attach_adapter(net, {"r": 2, "lora_alpha": 6, "target": "all"}))
    expected = net(x)
    adapter.save(tmp_path / "rain", name="rain", degradation="rain", iteration=7)
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "rain").iterdir()}
    assert len(modes) == 1, "others may read all of it or nothing"
    assert (tmp_path / "rain" / "adapter_config.json").is_file()
    assert (tmp_path / "rain" / "adapter_model.safetensors").is_file()
    twin = copy.deepcopy(base)
    plain = peft.PeftModel.from_pretrained(twin, str(tmp_path / "rain"))  # nothing of ours
    torch.testing.assert_close(plain(x), expected)
    ours = copy.deepcopy(base)
    load_adapter(ours, tmp_path / "rain")
    torch.testing.assert_close(ours(x), expected)
    record = json.loads((tmp_path / "rain" / "basicsr_plugins.json").read_text())
    assert record["iteration"] == 7
    assert record["base"]["fingerprint"] == fingerprint(base)
    assert (tmp_path / "rain").stat().st_mode & 0o755 == 0o755  # others may read it


def test_merge_gives_a_plain_network(net, x):
    keys = list(net.state_dict())
    adapter = train_a_little(attach_adapter(net, {"r": 2, "target": "all"}))
    expected = net(x)
    merged = adapter.merge()
    assert list(merged.state_dict()) == keys
    torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "peft_opt",
    [
        {"r": 2, "lora_alpha": 8},
        {"r": 2, "use_rslora": True, "target": "all"},
        {"r": 2, "use_dora": True},
        {"r": 4, "rank_pattern": {"gate": 1}, "alpha_pattern": {"gate": 3}},
        {"r": 2, "bias": "lora_only", "target": ["pointwise", "first"]},
        {"r": 2, "bias": "all"},
        {"type": "vera", "r": 4},
        {"type": "loha", "r": 2, "target": "all"},
        {"type": "lokr", "r": 2},
    ],
    ids=lambda opt: "-".join(f"{k}={v}" for k, v in opt.items() if k != "target"),
)
def test_every_method_trains_saves_merges_and_blends(net, x, tmp_path, peft_opt):
    base = copy.deepcopy(net)
    if peft_opt.get("bias") == "lora_only" and PEFT < (0, 18):
        with pytest.raises(DependencyError, match="does not save them"):
            attach_adapter(net, peft_opt)
        return
    adapter = attach_adapter(net, peft_opt)
    torch.testing.assert_close(net(x), base(x))
    train_a_little(adapter)
    net.eval()
    expected = net(x)
    assert (expected - base(x)).abs().max() > 1e-3
    adapter.save(tmp_path / "a", name="a")
    loaded = copy.deepcopy(base)
    load_adapter(loaded, tmp_path / "a")
    torch.testing.assert_close(loaded(x), expected)
    blended = BlendedNetwork(copy.deepcopy(base), find_adapters(tmp_path))
    weights = torch.tensor([[1.0], [0.0]])
    y = blended(x, weights)
    torch.testing.assert_close(y[:1], expected[:1], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(y[1:], base(x)[1:], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(adapter.merge()(x), expected, rtol=1e-4, atol=2e-5)
    assert list(net.state_dict()) == list(base.state_dict())


def test_vera_on_convolutions_trains_far_less_than_lora(net):
    vera = attach_adapter(copy.deepcopy(net), {"type": "vera", "r": 4})
    lora = attach_adapter(net, {"r": 4})
    assert sum(p.numel() for p in vera.parameters()) < sum(p.numel() for p in lora.parameters()) / 4


def test_dilation_and_padding_mode_are_copied(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=2, dilation=2, padding_mode="reflect"))
    base, x = copy.deepcopy(net), torch.rand(1, 3, 9, 9)
    adapter = train_a_little(attach_adapter(net, {"r": 2, "target": ["0"]}))
    unmerged = net(x)
    assert unmerged.shape == base(x).shape
    adapter.save(tmp_path / "a", name="a")
    loaded = copy.deepcopy(base)
    load_adapter(loaded, tmp_path / "a")
    torch.testing.assert_close(loaded(x), unmerged)
    torch.testing.assert_close(adapter.merge()(x), unmerged)
    with pytest.raises(OptionError, match="not zero-padded"):
        attach_adapter(copy.deepcopy(base), {"type": "loha", "r": 2, "target": ["0"]})


def test_a_name_that_ends_like_another_is_adapted_alone():
    net = nn.Sequential()
    net.gate, net.inner = nn.Linear(4, 4), nn.Sequential()
    net.inner.gate = nn.Linear(4, 4)
    attach_adapter(net, {"r": 2, "target": ["gate"]})
    assert {name.split(".lora_")[0] for name, p in net.named_parameters() if p.requires_grad} == {"gate"}


def test_another_base_is_refused_and_both_are_named(net, tmp_path):
    adapter = train_a_little(attach_adapter(net, {"r": 2}, network="Mixed", path="base_300000.pth"))
    adapter.save(tmp_path / "rain", name="rain")
    torch.manual_seed(9)
    other = type(net)()
    old, new = adapter.base["fingerprint"], fingerprint(other)
    pattern = f"'rain'.*trained on Mixed {old} .base_300000.pth.*network here is mine.pth {new}"
    for use in (
        lambda: load_adapter(other, tmp_path / "rain", where="mine.pth"),
        lambda: BlendedNetwork(other, find_adapters(tmp_path), where="mine.pth"),
    ):
        with pytest.raises(CheckpointError, match=pattern):
            use()


def test_an_adapter_of_plain_peft_needs_no_record_of_ours(net, x, tmp_path):
    base = copy.deepcopy(net)
    wrapped = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["gate"], init_lora_weights=False))
    expected = wrapped(x)
    wrapped.save_pretrained(str(tmp_path / "theirs"))
    blended = BlendedNetwork(base, {"theirs": read_folder(tmp_path / "theirs")})
    torch.testing.assert_close(blended(x, torch.ones(2, 1)), expected, rtol=1e-4, atol=2e-5)


def test_two_adapters_of_one_name_and_missing_ones_are_refused(net, tmp_path):
    adapter = attach_adapter(net, {"r": 2})
    adapter.save(tmp_path / "one", name="rain")
    adapter.save(tmp_path / "two", name="rain")
    with pytest.raises(OptionError, match=r"two adapters are called 'rain': .*one and .*two"):
        find_adapters(tmp_path)
    assert list(find_adapters({"a": tmp_path / "one", "b": tmp_path / "two"})) == ["a", "b"]
    with pytest.raises(CheckpointError, match="snow: does not exist"):
        find_adapters({"snow": tmp_path / "snow"})
    with pytest.raises(CheckpointError, match="there is no adapter here"):
        find_adapters(tmp_path / "nothing")
    (tmp_path / "two" / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_folder(tmp_path / "two").tensors()


def test_layers_and_shapes_of_another_network_are_refused(net, tmp_path):
    attach_adapter(net, {"r": 2}).save(tmp_path / "rain", name="rain")
    record = tmp_path / "rain" / "basicsr_plugins.json"
    record.write_text("{}")  # as if plain PEFT had written it: no fingerprint to compare
    with pytest.raises(CheckpointError, match=r"trained on \w+ with weights \(16, 16.*\(32, 32"):
        BlendedNetwork(type(net)(16), find_adapters(tmp_path))
    with pytest.raises(CheckpointError, match="Sequential does not have"):
        BlendedNetwork(nn.Sequential(nn.Linear(16, 16)), find_adapters(tmp_path))


def test_options_are_checked(net):
    with pytest.raises(OptionError, match=r"peft_opt.type: unknown PEFT method 'lra'.*'lora'"):
        attach_adapter(net, {"type": "lra"})
    with pytest.raises(OptionError, match=r"peft_opt.lora_alhpa: .*'lora_alpha'"):
        attach_adapter(net, {"lora_alhpa": 3})
    with pytest.raises(OptionError, match="PEFT refuses"):
        attach_adapter(net, {"r": -1})
    with pytest.raises(OptionError, match="target"):
        attach_adapter(net, {"target_modules": ["gate"]})
    attach_adapter(net, {"r": 2})
    with pytest.raises(OptionError, match="already carries"):
        attach_adapter(net, {"r": 2})
    assert {"lora", "vera", "loha"} <= set(methods())


def test_saving_again_replaces_the_folder_in_one_step(net, tmp_path):
    adapter = attach_adapter(net, {"r": 2})
    adapter.save(tmp_path / "rain", name="rain", iteration=1)
    (tmp_path / "rain" / "stray").write_text("old")
    adapter.save(tmp_path / "rain", name="rain", iteration=2)
    assert json.loads((tmp_path / "rain" / "basicsr_plugins.json").read_text())["iteration"] == 2
    assert not (tmp_path / "rain" / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["rain"]


def test_methods_that_are_of_no_use_here_say_why(net):
    with pytest.raises(OptionError, match=r"peft_opt.type: lily is of no use here: PEFT cannot merge it.*lora"):
        attach_adapter(net, {"type": "lily"})
    with pytest.raises(OptionError, match="PEFT refuses these adalora options.*total_step"):
        attach_adapter(net, {"type": "adalora"})


def test_biases_that_no_blend_takes_are_refused_before_training(net):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    for check in (attach_adapter, check_peft_options):
        with pytest.raises(
            OptionError, match=r"peft_opt\.bias: all would also train 1\.bias \(BatchNorm2d\).*lora_only"
        ):
            check(network, {"r": 2, "bias": "all"})
    check_peft_options(net, {"r": 2, "bias": "all"})
    assert not [name for name, _ in network.named_modules() if "lora" in name]


def test_an_adapter_with_pickled_weights_says_what_to_do(net, tmp_path):
    base = copy.deepcopy(net)
    attach_adapter(net, {"r": 2}).save(tmp_path / "rain", name="rain")
    torch.save(read_folder(tmp_path / "rain").tensors(), tmp_path / "rain" / "adapter_model.bin")
    (tmp_path / "rain" / "adapter_model.safetensors").unlink()
    for read in (
        lambda: load_adapter(base, tmp_path / "rain"),
        lambda: BlendedNetwork(base, find_adapters(tmp_path)),
    ):
        with pytest.raises(CheckpointError, match=r"adapter_model\.bin, a pickle.*safe_serialization=True"):
            read()


def test_a_change_that_is_no_layers_weight_cannot_be_blended(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1))
    base = copy.deepcopy(net)
    adapter = attach_adapter(net, {"r": 2, "modules_to_save": ["1"]})
    train_a_little(adapter).save(tmp_path / "a", name="a")
    with pytest.raises(
        CheckpointError, match=r"'a' .* changes 1.(weight|bias), which is no weight of a linear or conv"
    ):
        BlendedNetwork(base, find_adapters(tmp_path))


def test_peft_loads_only_when_it_is_needed(net, tmp_path):
    import subprocess
    import sys

    attach_adapter(net, {"r": 2}).save(tmp_path / "rain", name="rain")
    code = (
        "import sys, basicsr_plugins.adapters as a\n"
        f"a.read_folder({str(tmp_path / 'rain')!r}).tensors()\n"
        "import basicsr_plugins.adapters.factors as f\n"
        f"assert len(f.read_lora(a.read_folder({str(tmp_path / 'rain')!r}))) == 3\n"
        "assert 'peft' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_that_cannot_be_written_is_one_message_and_the_old_one_stays(tmp_path):
    write_folder(tmp_path / "rain", lambda folder: (folder / "old").touch(), {})

    def full(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"rain cannot be written: .*No space left"):
        write_folder(tmp_path / "rain", full, {})
    assert (tmp_path / "rain" / "old").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["rain"]
