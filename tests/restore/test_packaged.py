"""The model that comes with the package: small, whole, and taken where none is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from basicsr_plugins import load_restorer
from basicsr_plugins.adapters import find_adapters, fingerprint
from basicsr_plugins.cli.main import main
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.restore import packaged

ADAPTERS = ["blur", "haze", "jpeg", "low_light", "noise", "rain", "snow"]


@pytest.fixture(scope="module")
def restorer():
    return load_restorer(device="cpu")


def test_it_is_small_and_whole():
    files = [file for file in packaged.PACKAGED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 6_000_000
    assert not [file for file in files if file.suffix not in (".safetensors", ".json")]


def test_its_adapters_are_of_its_base(restorer):
    base = restorer.model.network.net
    assert restorer.model.adapters == ADAPTERS
    for name, folder in find_adapters(packaged.PACKAGED / "adapters").items():
        folder.check_base(fingerprint(load_restorer(packaged.PACKAGED / "base.safetensors").model.network), name)
    assert [*restorer.model.estimator.classes] == [
        "rain", "noise", "haze", "low_light", "blur", "jpeg", "snow", "clean",
    ]  # fmt: skip
    assert all(torch.isfinite(parameter).all() for parameter in base.parameters())


def test_a_photograph_is_restored_without_naming_a_model(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert main(["restore", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--device", "cpu"]) == 0
    assert "the built-in model" in capsys.readouterr().out
    assert Image.open(tmp_path / "b.png").size == (80, 64)
    named = load_restorer("builtin", device="cpu")
    assert np.array_equal(named(pixels), np.array(Image.open(tmp_path / "b.png")))


def test_a_package_without_its_model_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "PACKAGED", tmp_path)
    with pytest.raises(OptionError, match="Install the package again, or name a model"):
        load_restorer()
