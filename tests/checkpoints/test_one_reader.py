"""Every container and every prefix, in through every public door; files that say which network they hold."""

from __future__ import annotations

import json
import logging
import os

import pytest
import torch
from torch import nn

from basicsr_plugins import checkpoints
from basicsr_plugins.cli.main import main
from basicsr_plugins.core.atomic import atomic_path
from basicsr_plugins.core.errors import CheckpointError, OptionError, TrainingError
from basicsr_plugins.core.registration import provided
from basicsr_plugins.training.checkpointing import Checkpointing

NOISE = {"weight": torch.zeros(2)}
CONTAINERS = {
    "bare": lambda state: state,
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {"params_ema": state, "params": NOISE},
    "params beside a tensor": lambda state: {"params": state, "iter": torch.tensor(7)},
    "an empty params": lambda state: {"params": {}, "params_ema": state},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer_states": [{}]},
    "model_state_dict": lambda state: {"model_state_dict": state, "network": {"type": "Theirs"}},
    "model": lambda state: {"model": state, "step": 7, "psnrs": [1.0]},
    "net": lambda state: {"net": state},
    "net_g": lambda state: {"net_g": state, "net_d": NOISE},
    "weights": lambda state: {"weights": state},
    "one in the other": lambda state: {"model": {"state_dict": state}, "epoch": torch.tensor(1)},
}
PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "net.",
    "net_g.",
    "module._orig_mod.",
    "module.net.",
    "_orig_mod.net_g.module.",
]


TINY = {"preset": "tiny", "width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1], "middle_blk_num": 1}


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return provided("arch")["NAFNet"](**TINY).eval()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_and_prefix_through_every_door(tmp_path, container, prefix):
    network, path = tiny(), tmp_path / "some.CKPT"
    state = network.state_dict()
    wrapped = CONTAINERS[container]({f"{prefix}{key}": value for key, value in state.items()})
    torch.save(wrapped, path)

    def is_all(found):
        return list(found) == list(state) and all(torch.equal(found[key], state[key]) for key in state)

    assert is_all(checkpoints.find_weights(wrapped))
    assert is_all(checkpoints.read(path))
    assert checkpoints.recognise(wrapped) == ("official", "NAFNet")
    options, converted = checkpoints.convert(wrapped, "official", "NAFNet")
    assert is_all(converted)
    assert options["type"] == "NAFNet"
    assert is_all(checkpoints.load(path).state_dict())
    for fill in (
        lambda other: checkpoints.load(other, wrapped),
        lambda other: checkpoints.load_into(other, wrapped),
        lambda other: checkpoints.load_state(other, checkpoints.read_weights(path, "params_ema"), path),
    ):
        other = provided("arch")["NAFNet"](**TINY)
        fill(other)
        assert is_all(other.state_dict())


class Pretrained(Checkpointing):
    """The engine's own door, ``path.pretrain_network_g``, without the engine."""

    def __init__(self, path):
        self.opt = {"path": {"pretrain_network_g": str(path)}}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_pretrained_files_and_convert_share_the_rules(tmp_path, prefix):
    state, output = tiny().state_dict(), tmp_path / "OUT.SAFETENSORS"
    prefixed = {f"{prefix}{key}": value.clone() for key, value in state.items()}
    for container in ("bare", "params", "params beside a tensor", "state_dict", "model_state_dict"):
        for name in ("X.SAFETENSORS",) if container == "bare" else ("x.pth", "X.PTH"):
            path = tmp_path / name
            if container == "bare":
                checkpoints.write_safetensors(prefixed, path)
            else:
                torch.save(CONTAINERS[container](prefixed), path)
            network = provided("arch")["NAFNet"](**TINY)
            Pretrained(path).load_pretrained("g", network)
            assert main(["convert", str(path), str(output)]) == 0
            for found in (network.state_dict(), checkpoints.read(output)):
                assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_network_may_keep_everything_in_a_part_called_net(tmp_path, prefix):
    network = nn.ModuleDict({"net": nn.Linear(2, 2)})
    path = tmp_path / "net_g_1.pth"
    torch.save({"params": {f"{prefix}{key}": value for key, value in network.state_dict().items()}}, path)
    assert list(checkpoints.read_weights(path)) == ["net.weight", "net.bias"]
    for weights in (checkpoints.read_weights(path), checkpoints.read(path)):
        other = nn.ModuleDict({"net": nn.Linear(2, 2)})
        checkpoints.load_state(other, weights, path)
        assert torch.equal(other["net"].weight, network["net"].weight)
        checkpoints.load_into(other, weights)


def test_a_prefix_that_only_some_keys_have_stays():
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert list(checkpoints.find_weights(state)) == ["module.a", "b"]


def test_a_wanted_entry_comes_first_and_basicsrs_two_stand_in_for_each_other():
    plain, averaged = {"a": torch.zeros(1)}, {"a": torch.ones(1)}
    both = {"params": plain, "params_ema": averaged}
    assert checkpoints.find_weights(both, "params")["a"] == 0
    assert checkpoints.find_weights(both, "params_ema")["a"] == 1
    assert checkpoints.find_weights({"params_ema": averaged}, "params")["a"] == 1
    assert checkpoints.find_weights({"net_g": plain, "mine": averaged}, "mine")["a"] == 1
    with pytest.raises(CheckpointError, match=r"file: unknown entry 'model'.*Allowed: params, params_ema"):
        checkpoints.find_weights(both, "model", "file")


def test_suffixes_are_read_in_any_case(tmp_path):
    network = tiny()
    for name in ("X.SAFETENSORS", "Y.SafeTensors", "Z.PTH"):
        checkpoints.write(tmp_path / name, network.state_dict(), {"type": "NAFNet", **TINY})
        found = checkpoints.read(tmp_path / name)
        assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())
    assert (tmp_path / "X.SAFETENSORS").read_bytes()[8:9] == b"{"
    with pytest.raises(CheckpointError, match=r"holds: X\.SAFETENSORS"):
        checkpoints.read(tmp_path / "missing.pth")


NETWORKS = {
    "ABAIRNet": {"preset": "tiny"},
    "DCPTSwinIR": {"embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3], "img_size": 16, "window_size": 8},
    "DegradationClassifier": {"feature_dims": [8, 16], "num_classes": 3, "num_res_blocks": 1, "max_width": 8},
    "DegradationEstimator": {"classes": ["rain", "haze"], "preset": "tiny"},
    "DehazeFormer": {"preset": "tiny"},
    "FFANet": {"preset": "tiny"},
    "IDT": {"preset": "tiny"},
    "NAFNet": {"preset": "tiny", "padding": "reflect"},
    "NAFNetLocal": {"preset": "tiny", "train_size": [1, 3, 32, 32]},
    "PromptIR": {"preset": "tiny"},
    "RestorationResNet": {},
    "Restormer": {"preset": "tiny", "attention": "relu", "block_bias": False},
    "UNet": {},
    "MSRResNet": {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 2},
    "SwinIR": {"img_size": 16, "window_size": 8, "embed_dim": 12, "depths": [2], "num_heads": [2], "mlp_ratio": 2.0},
}  # fmt: skip


def test_every_network_that_can_be_built_small_is_listed():
    assert set(provided("arch")) - set(NETWORKS) == {"SegmentationHead", "VQGAN"}  # parts of others; large


def built(name):
    ours = provided("arch")
    if name in ours:
        return ours[name](**NETWORKS[name])
    from basicsr_plugins import stock

    return stock.registries()["arch"].get(name)(**NETWORKS[name])


def is_same(network, other, name):
    x = torch.rand(1, 3, 64, 64)
    if name == "DegradationClassifier":
        inputs = [[torch.rand(1, 8, 16, 16), torch.rand(1, 16, 8, 8)]]
    else:
        inputs = [x]
    with torch.no_grad():
        one, two = network.eval()(*inputs), other(*inputs)
    parts = zip(one, two) if isinstance(one, (tuple, list)) else [(one, two)]
    return all(torch.equal(a, b) for a, b in parts)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_we_write_says_which_network_it_holds(tmp_path, name, suffix):
    torch.manual_seed(3)
    network, path = built(name), tmp_path / f"net{suffix}"
    checkpoints.write_network_file(path, {"params": network.state_dict()}, {"type": name, **NETWORKS[name]})
    again = checkpoints.load(path)
    assert type(again) is type(network)
    assert not again.training
    assert is_same(network, again, name)


@pytest.mark.parametrize("entry", ["params", "params_ema"])
def test_stocks_own_loader_still_reads_the_file(tmp_path, entry):
    from basicsr.models.base_model import BaseModel

    network, averaged, path = tiny(), tiny(), tmp_path / "net_g_1.pth"
    for parameter in averaged.parameters():
        parameter.data.add_(1)
    states = {"params": network.state_dict(), "params_ema": averaged.state_dict()}
    checkpoints.write_network_file(path, states, {"type": "NAFNet", **TINY})
    model = BaseModel({"num_gpu": 0, "is_train": False, "dist": False})
    other = provided("arch")["NAFNet"](**TINY)
    model.load_network(other, str(path), strict=True, param_key=entry)
    assert all(torch.equal(value, states[entry][key]) for key, value in other.state_dict().items())
    assert torch.load(path, weights_only=True)["network"] == {"type": "NAFNet", **TINY}
    for wanted in ("params", "params_ema"):
        loaded = checkpoints.load(path, wanted).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in states[wanted].items())
    safe = path.with_suffix(".safetensors")
    checkpoints.write_network_file(safe, states, {"type": "NAFNet", **TINY})
    assert torch.equal(checkpoints.read(safe)["intro.weight"], states["params_ema"]["intro.weight"])


def test_the_metadata_of_safetensors_is_json(tmp_path):
    from safetensors import safe_open

    from basicsr_plugins import __version__

    path = tmp_path / "net.safetensors"
    checkpoints.write(path, tiny().state_dict(), {"type": "NAFNet", **TINY})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["network_g"]) == {"type": "NAFNet", **TINY}
    assert metadata["basicsr_plugins"] == __version__


def test_safetensors_of_others_are_recognised_by_their_keys(tmp_path):
    from safetensors.torch import save_file

    network, path = tiny(), tmp_path / "theirs.safetensors"
    for metadata in (None, {"network_g": "no JSON"}, {"network_g": "[1]"}):
        save_file(network.state_dict(), path, metadata)
        again = checkpoints.load(path).state_dict()
        assert all(torch.equal(again[key], value) for key, value in network.state_dict().items())


def test_load_takes_arguments_and_says_what_is_wrong(tmp_path):
    path = tmp_path / "net.pth"
    checkpoints.write(path, tiny().state_dict(), {"type": "NAFNet", **TINY})
    assert checkpoints.load(path, padding="reflect").padding == "reflect"
    with pytest.raises(OptionError, match="Did you mean 'use_checkpoint'"):
        checkpoints.load(path, use_chekpoint=True)
    with pytest.raises(OptionError, match="expected a state dict, got PosixPath"):
        checkpoints.load(tiny(), path)
    checkpoints.write(path, tiny().state_dict(), {"type": "NAFNett"})
    with pytest.raises(CheckpointError, match="net.pth: the network that it says it holds.*Did you mean 'NAFNet'"):
        checkpoints.load(path)
    checkpoints.write(path, tiny().state_dict(), {"type": "NAFNet", "width": 8})
    with pytest.raises(CheckpointError, match="Set width"):
        checkpoints.load(path)
    checkpoints.write(path, {"fc.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"fc.weight ...\) are of no network known here.*load_into"):
        checkpoints.load(path)


def test_a_file_cannot_name_code_of_its_own(tmp_path):
    path = tmp_path / "net.pth"
    checkpoints.write(path, tiny().state_dict(), {"type": "torch.nn:Linear", "in_features": 1, "out_features": 1})
    with pytest.raises(CheckpointError, match="unknown arch 'torch.nn:Linear'"):
        checkpoints.load(path)


def test_options_that_are_no_plain_values_never_cost_the_weights(tmp_path, caplog):
    path = tmp_path / "net.pth"
    with caplog.at_level(logging.WARNING, logger="basicsr"):
        checkpoints.write(path, tiny().state_dict(), {"type": "NAFNet", "act": nn.ReLU})
    assert "not recorded" in caplog.text
    assert list(torch.load(path, weights_only=True)) == ["params"]


def test_loading_into_the_wrong_network_says_which_it_looks_like(tmp_path):
    weights, other = tiny().state_dict(), provided("arch")["Restormer"](preset="tiny")
    for fill in (
        lambda: checkpoints.load(other, weights),
        lambda: checkpoints.load_state(other, weights, "net.pth"),
        lambda: checkpoints.convert(weights, "official", "Restormer"),
    ):
        with pytest.raises(
            CheckpointError, match=r"look like the official NAFNet, not like Restormer.*Set network: NAFNet"
        ):
            fill()
    wide = provided("arch")["NAFNet"](**{**TINY, "width": 8})
    with pytest.raises(CheckpointError, match=r"(?s)net.pth does not fit NAFNet.*Set width: \d+, or strict_load"):
        checkpoints.load_state(wide, weights, "net.pth")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_message_and_the_old_file_stays(tmp_path):
    path = tmp_path / "net.pth"
    checkpoints.write(path, {"a": torch.ones(1)})
    old = path.read_bytes()
    path.with_name(f"{path.name}.{os.getpid()}.incomplete").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"net\.pth cannot be written.*is kept"):
        checkpoints.write(path, {"a": torch.rand(1 << 20)})
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


def test_safetensors_that_cannot_be_written_are_one_message(tmp_path):
    path = tmp_path / "net.safetensors"
    path.with_name(f"{path.name}.{os.getpid()}.incomplete").mkdir()
    with pytest.raises(CheckpointError, match=r"net\.safetensors cannot be written"):
        checkpoints.write(path, {"a": torch.ones(1)})


def test_our_own_errors_pass_through(tmp_path):
    with pytest.raises(TrainingError, match="collapsed"), atomic_path(tmp_path / "x"):
        raise TrainingError("collapsed")
