"""``--model NAME``, ``--model builtin`` and ``--model hf://user/repository``."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from restore_networks import ARGUMENTS, tiny

from basicsr_plugins import load_restorer
from basicsr_plugins.cli.main import main
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.hub import published
from basicsr_plugins.hub.cache import model_folder
from basicsr_plugins.restore import names


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A row of the table whose file lies in the cache."""
    monkeypatch.setenv("BASICSR_PLUGINS_CACHE", str(tmp_path / "cache"))
    row = published.PublishedModel(
        "tiny_model", "NAFNet", "nothing", "tiny.pth", "https://no-such-host.invalid/tiny.pth",
        "https://github.com/nobody/tiny", "MIT", arguments=ARGUMENTS,
    )  # fmt: skip
    monkeypatch.setitem(published.MODELS, "tiny_model", row)
    model_folder(row).mkdir(parents=True)
    torch.save({"params": tiny().state_dict()}, model_folder(row) / "tiny.pth")
    return row


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_name_restores(model, photo, capsys):
    assert main(["restore", str(photo), "--model", "tiny_model", "--device", "cpu"]) == 0
    assert "NAFNet of tiny_model (" in capsys.readouterr().out
    restored = load_restorer("tiny_model", device="cpu")(np.asarray(Image.open(photo)))
    assert np.array_equal(np.asarray(Image.open(photo.with_name("a_restored.png"))), restored)


def test_a_path_of_that_name_goes_first(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_model").mkdir()
    with pytest.raises(OptionError, match="tiny_model holds no model"):
        load_restorer("tiny_model", device="cpu")


def test_a_name_that_cannot_be_fetched(model, photo, capsys):
    (model_folder(model) / "tiny.pth").unlink()
    assert main(["restore", str(photo), "--model", "tiny_model"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("basicsr-plugins restore: tiny_model cannot be fetched: the connection failed")
    assert error.count("\n") == 1
    for part in (model.address, model.file, str(model_folder(model))):
        assert part in error


def test_a_file_of_another_model(model, monkeypatch):
    monkeypatch.setitem(published.MODELS, "tiny_model", dataclasses.replace(model, arguments={"width": 8}))
    with pytest.raises(CheckpointError, match="is not tiny_model: .*another variant"):
        load_restorer("tiny_model", device="cpu")


def test_misspelt_names_and_missing_files():
    with pytest.raises(OptionError, match=r"neither a file nor a folder nafnet_gopro_w23\. As a name: .*Did you mean"):
        load_restorer("nafnet_gopro_w23", device="cpu")
    for path in ("no/such.pth", "net.pth"):
        with pytest.raises(OptionError, match=r"neither a file nor a folder") as caught:
            load_restorer(path, device="cpu")
        assert "As a name" not in str(caught.value)


def test_what_belongs_to_adapters_is_refused(model, tmp_path):
    with pytest.raises(OptionError, match=r"--base: it belongs to adapters, but --model is the name of a published"):
        load_restorer("tiny_model", device="cpu", base=tmp_path)


def test_models_that_do_not_run_say_why():
    with pytest.raises(OptionError, match="mclir_edsr cannot be run here: EDSR"):
        load_restorer("mclir_edsr", device="cpu")
    with pytest.raises(
        DependencyError, match=r"take deraining\.pth from https://drive.* in a browser and put it into "
    ):
        load_restorer("restormer_deraining", device="cpu")


def test_builtin_is_the_packaged_model(model, monkeypatch):
    monkeypatch.setattr(names, "packaged_model", lambda: model_folder(model) / "tiny.pth")
    assert load_restorer("builtin", device="cpu").model.label.startswith("NAFNet of ")


@pytest.mark.parametrize("address", ["hf://me/net", "hf:me/net", "hf://me/net/model.safetensors"])
def test_addresses_of_the_hub(address, tmp_path, monkeypatch):
    asked = []

    def given(repository, *name, **_):
        asked.append((repository, *name))
        return str(tmp_path / "net" / name[0]) if name else str(tmp_path / "net")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=given, hf_hub_download=given))
    tiny().save_pretrained(tmp_path / "net")
    restore = load_restorer(address, device="cpu")
    assert torch.equal(restore.model.network.intro.weight, tiny().intro.weight)
    assert asked == [("me/net", "model.safetensors") if address.endswith("safetensors") else ("me/net",)]


def test_half_an_address_of_the_hub():
    with pytest.raises(OptionError, match=r"expected hf://user/repository"):
        load_restorer("hf://me", device="cpu")
