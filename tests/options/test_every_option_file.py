"""Every option file that is shipped passes the checks, builds, trains two iterations and validates, scaled down."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from shrinking import OPTIONS, Shrunk
from torch.utils.data import DataLoader

import basicsr_plugins
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.launch.checking import check_options

#: Fragments to paste from, and files of other programs than train.py and test.py.
NOT_RUNS = ("data", "fragments", "sweeps")
FILES = sorted(
    path.relative_to(OPTIONS).as_posix()
    for path in OPTIONS.rglob("*.yml")
    if path.relative_to(OPTIONS).parts[0] not in NOT_RUNS
)


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory):
    basicsr_plugins.register()
    return Shrunk(tmp_path_factory.mktemp("shrunk"))


@pytest.fixture(autouse=True)
def _no_vgg_statistics(monkeypatch):
    monkeypatch.chdir(OPTIONS.parent)


def dataset(options):
    return lookup("dataset", options["type"])(copy.deepcopy(options))


@pytest.mark.parametrize("name", FILES)
def test_an_option_file_runs_scaled_down(name, shrunk):
    opt = shrunk.options(name)
    check_options(opt)
    torch.manual_seed(0)
    model = lookup("model", opt["model_type"])(copy.deepcopy(opt))
    sets = {phase: options for phase, options in opt["datasets"].items() if phase != "train"}
    if opt["is_train"]:
        loader = DataLoader(dataset(opt["datasets"]["train"]), batch_size=2, shuffle=True)
        batches = iter(loader)
        for iteration in (1, 2):
            model.update_learning_rate(iteration, warmup_iter=-1)
            model.feed_data(next(batches, None) or next(iter(loader)))
            model.optimize_parameters(iteration)
        log = model.get_current_log()
        assert log
        assert all(math.isfinite(value) for value in log.values()), log
    assert sets, "nothing is validated"
    for options in sets.values():
        model.validation(DataLoader(dataset(options), batch_size=1), 2, None, save_img=False)
        assert model.metric_results, "validation has no result"
        assert all(math.isfinite(value) for value in model.metric_results.values())


def test_every_folder_of_options_is_looked_at():
    folders = {path.relative_to(OPTIONS).parts[0] for path in OPTIONS.rglob("*.yml") if path.parent != OPTIONS}
    assert folders <= {*NOT_RUNS, "builtin", "demo"}, "a new folder: add it to NOT_RUNS or leave it to this test"
    assert len(FILES) > 60
