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
from basicsr_plugins.degradations import build_degradation
from basicsr_plugins.restore import packaged

#: PSNR of the degraded and of the restored middle of a photograph that the model never saw, and what is recognised.
RECORDED = {
    "rain": ({"type": "Rain", "preset": "small"}, 20.04, 27.02),
    "noise": ({"type": "GaussianNoise", "sigma": 25}, 20.32, 27.78),
    "haze": ({"type": "Haze", "beta": [1.0, 2.0], "airlight": [0.6, 0.9]}, 14.96, 24.11),
    "low_light": ("LowLight", 9.18, 21.74),
    "blur": ({"type": "GaussianBlur", "sigma": 1.5}, 28.48, 28.91),
    "jpeg": ({"type": "JPEG", "quality": 20}, 28.76, 29.04),
    "snow": ("Snow", 20.63, 30.28),
}
ADAPTERS = ["blur", "haze", "jpeg", "low_light", "noise", "rain", "snow"]


@pytest.fixture(scope="module")
def restorer():
    return load_restorer(device="cpu")


def test_it_is_small_and_whole():
    files = [file for file in packaged.PACKAGED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 6_000_000
    assert not [file for file in files if file.suffix not in (".safetensors", ".json", ".yml")]


def test_its_adapters_are_of_its_base(restorer):
    base = restorer.model.network.net
    assert restorer.model.adapters == ADAPTERS
    for name, folder in find_adapters(packaged.PACKAGED / "adapters").items():
        folder.check_base(fingerprint(load_restorer(packaged.PACKAGED / "base.safetensors").model.network), name)
    assert [*restorer.model.estimator.classes] == [
        "rain", "noise", "haze", "low_light", "blur", "jpeg", "snow", "clean",
    ]  # fmt: skip
    assert all(torch.isfinite(parameter).all() for parameter in base.parameters())


@pytest.mark.parametrize("name", RECORDED)
def test_it_restores_what_was_recorded(restorer, name):
    """Fails when the weights, the blending or the degradation change: then docs/builtin_model.md is out of date."""
    data = pytest.importorskip("skimage.data")
    kind, before, after = RECORDED[name]
    image = np.ascontiguousarray(data.chelsea()[40:232, 120:312])
    degraded = build_degradation(kind)(image.astype(np.float32) / 255, np.random.default_rng(0)).image
    lq = np.rint(degraded * 255).astype(np.uint8)
    seen = restorer.look(lq)
    assert next(iter(seen)) == name
    assert psnr(image, lq) == pytest.approx(before, abs=0.02)
    assert psnr(image, restorer.restore_pixels(lq, seen)) == pytest.approx(after, abs=0.03)


def test_a_clean_photograph_stays_as_it_is(restorer):
    data = pytest.importorskip("skimage.data")
    image = np.ascontiguousarray(data.rocket()[:300, 100:500])
    assert psnr(image, restorer(image)) > 50


def psnr(one, other):
    return 10 * np.log10(255**2 / max(1e-9, np.mean((one.astype(float) - other.astype(float)) ** 2)))


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
