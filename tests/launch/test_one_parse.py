"""An option file is parsed once; what the check has read is what data sets and recipe use."""

from __future__ import annotations

import collections
import copy

import pytest
import tiny_runs

import basicsr_plugins
from basicsr_plugins.core import options as core_options
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.degradations.base import Degradation
from basicsr_plugins.launch.checking import check_run


@pytest.fixture
def counted(monkeypatch):
    """Count the parsed schemas and the built degradations."""
    counts: collections.Counter[str] = collections.Counter()
    parse, build = core_options.parse, Degradation.from_options.__func__

    def counting_parse(schema, *args, **kwargs):
        counts[schema.__qualname__] += 1
        return parse(schema, *args, **kwargs)

    def counting_build(cls, *args, **kwargs):
        counts[f"built {cls.__name__}"] += 1
        return build(cls, *args, **kwargs)

    for module in ("core.checked", "launch.checking", "data.loader_options", "training.run_options"):
        monkeypatch.setattr(f"basicsr_plugins.{module}.parse", counting_parse, raising=False)
    monkeypatch.setattr(Degradation, "from_options", classmethod(counting_build))
    return counts


def run(opt):
    """Build what BasicSR's loop builds, from deep copies as it does."""
    sets = [lookup("dataset", given["type"])(copy.deepcopy(given)) for given in opt["datasets"].values()]
    return sets, lookup("model", opt["model_type"])(copy.deepcopy(opt))


def test_check_and_run_parse_each_section_once_and_build_each_degradation_once(tmp_path, counted):
    basicsr_plugins.register()
    tiny_runs.write_images(tmp_path / "images")
    opt = tiny_runs.parsed_options(tmp_path, "dcpt", val={"pbar": False})
    check_run(opt)
    sections = len(opt["datasets"])
    after_check = dict(counted)
    assert after_check["DCPTSettings"] == after_check["ValSettings"] == 1
    assert after_check["DegradationDataset.Options"] == sections
    kinds = [key for key in after_check if key.startswith("built ")]
    assert sum(after_check[kind] for kind in kinds) == sum(len(d["degradations"]) for d in opt["datasets"].values())
    run(opt)
    assert dict(counted) == after_check


def test_a_section_that_changes_after_the_check_is_read_again(tmp_path, counted):
    basicsr_plugins.register()
    tiny_runs.write_images(tmp_path / "images")
    opt = tiny_runs.parsed_options(tmp_path, "dcpt", val={"pbar": False})
    check_run(opt)
    opt["train"]["ema_decay"] = 0.25
    _, model = run(opt)
    assert model.settings.ema_decay == 0.25


def test_the_recipe_reads_what_the_check_has_read(tmp_path):
    basicsr_plugins.register()
    tiny_runs.write_images(tmp_path / "images")
    opt = tiny_runs.parsed_options(tmp_path, "dcpt", val={"pbar": False})
    checked = check_run(opt)
    sets, model = run(opt)
    assert model.settings is checked.train
    assert model.val_settings is checked.val
    assert [data.options for data in sets] == [plan.options for plan in checked.plans.values()]
    assert sets[0].entries is checked.plans["train"].entries
