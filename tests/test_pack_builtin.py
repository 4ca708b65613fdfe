"""tools/pack_builtin.py: rounding comes before the adapters; what is packed loads, fits together and is small."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest
import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters.attach import attach_adapter, load_adapter
from basicsr_plugins.archs.degradation_estimator_arch import DegradationEstimator
from basicsr_plugins.archs.nafnet_arch import NAFNet
from basicsr_plugins.core.errors import CheckpointError

FILE = Path(__file__).resolve().parents[1] / "tools" / "pack_builtin.py"
SMALL = {"width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("pack_builtin", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_base() -> NAFNet:
    torch.manual_seed(0)
    return NAFNet(**SMALL)


@pytest.fixture
def experiments(tool, tmp_path):
    """What tools/train_builtin.sh leaves, of a tiny network."""
    trained = small_base()
    models = tmp_path / "builtin_base" / "models"
    models.mkdir(parents=True)
    network = {"type": "NAFNet", **SMALL}
    states = {
        "params": {key: 2 * value for key, value in trained.state_dict().items()},
        "params_ema": trained.state_dict(),
    }
    checkpoints.write_network_file(models / "net_g_latest.pth", states, network)
    tool.write_half(models / "net_g_latest.pth", tmp_path / tool.BASE)
    base = small_base()
    base.load_state_dict(checkpoints.read(tmp_path / tool.BASE))
    for name in tool.ADAPTERS:
        adapter = attach_adapter(copy.deepcopy(base), {"r": 2}, network="NAFNet", path="base")
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter)
        adapter.save(tmp_path / f"builtin_adapter_{name}" / "models" / "adapter_latest", name)
    estimator = DegradationEstimator([*tool.ADAPTERS, "clean"], preset="tiny")
    (tmp_path / "builtin_blend" / "models").mkdir(parents=True)
    checkpoints.save({"params": estimator.state_dict()}, tmp_path / "builtin_blend" / "models" / "net_e_latest.pth")
    return tmp_path


def test_the_packed_model_is_the_averaged_one_in_half_precision_and_its_adapters_fit(tool, experiments, tmp_path):
    files = tool.pack(experiments, tmp_path / "model")
    assert {file.suffix for file in files} == {".safetensors", ".json", ".yml"}
    base = checkpoints.read_checkpoint(tmp_path / "model" / "base.safetensors")
    for key, value in small_base().state_dict().items():
        assert base[key].dtype == torch.float16
        assert torch.equal(base[key], value.half()), "the averaged weights"
    assert checkpoints.recorded_network(tmp_path / "model" / "base.safetensors", base)["width"] == 4
    estimator = DegradationEstimator([*tool.ADAPTERS, "clean"], preset="tiny")
    estimator.load_by_name(checkpoints.read(tmp_path / "model" / "estimator.safetensors"), "estimator")
    for name in tool.ADAPTERS:
        network = small_base()
        network.load_state_dict(base)
        load_adapter(network, tmp_path / "model" / "adapters" / name)
        assert torch.isfinite(network(torch.rand(1, 3, 8, 8))).all()


def test_adapters_of_the_base_before_rounding_are_refused(tool, experiments, tmp_path):
    adapter = attach_adapter(small_base(), {"r": 2}, network="NAFNet", path="base")
    adapter.save(experiments / "builtin_adapter_haze" / "models" / "adapter_latest", "haze")
    with pytest.raises(CheckpointError, match=r"builtin_adapter_haze.*Train the adapter again"):
        tool.pack(experiments, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_that_is_too_large_and_a_folder_in_use_are_refused(tool, experiments, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="is not empty"):
        tool.pack(experiments, experiments)
    monkeypatch.setattr(tool, "LIMIT", 1000)
    with pytest.raises(CheckpointError, match="at most 1,000 are allowed"):
        tool.pack(experiments, tmp_path / "model")


def test_values_that_half_precision_does_not_hold_are_named(tool):
    with pytest.raises(CheckpointError, match=r"net\.pth: weight has values beyond float16 \(100000"):
        tool.halved({"weight": torch.tensor([1e5])}, Path("net.pth"))
