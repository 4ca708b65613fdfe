"""Every row of the table: complete, and its arguments are those that weights of its network show."""

from __future__ import annotations

import re

import pytest
import torch

from basicsr_plugins.checkpoints import recognise
from basicsr_plugins.checkpoints.convert import constructor_of
from basicsr_plugins.checkpoints.fit import read_arguments
from basicsr_plugins.checkpoints.variants import VARIANTS
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import check_call
from basicsr_plugins.hub import cache
from basicsr_plugins.hub.download import check_address
from basicsr_plugins.hub.drive import direct_address
from basicsr_plugins.hub.fetch import by_hand
from basicsr_plugins.hub.published import MODELS, published_model

RUNNABLE = [name for name, model in MODELS.items() if not model.missing]


@pytest.mark.parametrize("name", MODELS)
def test_a_row_is_complete(name):
    model = MODELS[name]
    assert model.name == name
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert model.file.endswith((".pth", ".ckpt"))
    for part in (model.task, model.licence, model.figure, model.network):
        assert part
    for address in (model.address, model.repository):
        check_address(address)
    assert model.is_folder or "usercontent" in direct_address(model.address)
    assert not model.sha256 or re.fullmatch("[0-9a-f]{64}", model.sha256)
    for part in (model.file, model.address, str(cache.model_folder(model))):
        assert part in by_hand(model)


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_arguments_are_those_that_its_weights_show(name):
    model = MODELS[name]
    constructor = constructor_of(model.network)
    arguments = check_call(constructor, model.arguments, name)
    with torch.device("cpu" if "SwinIR" in model.network else "meta"):
        weights = constructor(**arguments).state_dict()
    assert recognise(weights)[1].replace("DCPT", "") == model.network.replace("DCPT", "")
    shown = read_arguments(VARIANTS[model.network], weights)
    assert {key: shown[key] for key in arguments if key in shown} == {
        key: value for key, value in arguments.items() if key in shown
    }


def test_names_and_files():
    assert len({(model.address, model.file) for model in MODELS.values()}) == len(MODELS)
    assert published_model("nafnet_gopro_w32").arguments["width"] == 32
    with pytest.raises(OptionError, match="Did you mean 'restormer_deraining'"):
        published_model("restormer_derain")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(cache.VARIABLE, "~/own")
    assert cache.cache_folder() == tmp_path / "own"
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "basicsr_plugins"
    for passed_over in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", passed_over)
        assert cache.cache_folder() == tmp_path / ".cache" / "basicsr_plugins"
