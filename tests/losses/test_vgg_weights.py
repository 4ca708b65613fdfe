"""Where a VGG's weights come from, and what is said when there are none."""

from __future__ import annotations

import urllib.error

import pytest
import torch
from torchvision.models.vgg import cfgs, make_layers

from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.losses.perceptual_features import VGGFeatures, layer_names
from basicsr_plugins.losses.vgg_weights import vgg_state_dict


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(3)
    return {f"features.{key}": value for key, value in make_layers(cfgs["A"]).state_dict().items()}


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.chdir(tmp_path)


def test_layer_names_are_basicsrs():
    assert layer_names("vgg16")[:7] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1"]
    from basicsr.archs.vgg_arch import NAMES

    for backbone in ("vgg11", "vgg13", "vgg16", "vgg19"):
        assert layer_names(backbone) == NAMES[backbone]


def test_local_file_is_used(weights, tmp_path, no_network):
    torch.save({**weights, "classifier.0.weight": torch.zeros(1)}, tmp_path / "mine.pth")
    found = VGGFeatures("vgg11", ["relu2_1"], weights=str(tmp_path / "mine.pth"))
    torch.testing.assert_close(found.net.conv2_1.weight, weights["features.3.weight"], rtol=0, atol=0)


def test_basicsrs_folder_comes_first(weights, tmp_path, no_network):
    folder = tmp_path / "experiments" / "pretrained_models"
    folder.mkdir(parents=True)
    torch.save(weights, folder / "vgg11-8a719046.pth")
    found = VGGFeatures("vgg11", ["relu1_1"])
    torch.testing.assert_close(found.net.conv1_1.weight, weights["features.0.weight"], rtol=0, atol=0)
    with pytest.raises(DependencyError):
        vgg_state_dict("vgg11", "torchvision")


def test_torchvisions_cache(weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **k: (asked.append((url, k)), weights)[1])
    vgg_state_dict("vgg11", "auto")
    ((url, arguments),) = asked
    assert url.endswith("/vgg11-8a719046.pth")
    assert arguments["weights_only"] is True
    assert arguments["check_hash"] is True


def test_never_silently_random(no_network):
    with pytest.raises(DependencyError) as caught:
        VGGFeatures("vgg16", ["relu1_1"])
    text = str(caught.value)
    for word in ("vgg16-397923af.pth", "experiments/pretrained_models", "weights: random", "no route to host"):
        assert word in text


def test_random_has_to_be_asked_for(no_network):
    assert vgg_state_dict("vgg16", "random") is None


def test_wrong_files(weights, tmp_path, no_network):
    with pytest.raises(OptionError, match=r"there is no file '.*nowhere.pth'.*vgg16-397923af.pth"):
        vgg_state_dict("vgg16", str(tmp_path / "nowhere.pth"))
    torch.save(weights, tmp_path / "vgg11.pth")
    with pytest.raises(CheckpointError, match="is not a vgg16"):
        vgg_state_dict("vgg16", str(tmp_path / "vgg11.pth"))
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
        with pytest.raises(CheckpointError, match=f"{name}.* cannot"):
            vgg_state_dict("vgg11", str(tmp_path / name))
    with pytest.raises(OptionError, match="expected auto, torchvision, random or the path"):
        vgg_state_dict("vgg16", "")
