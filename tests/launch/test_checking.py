"""Option files are checked where they use something of ours, and left alone where they do not."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import tiny_runs
import torch

import basicsr_plugins
from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.launch.checking import check_options, check_run, uses_ours


@pytest.fixture
def options(tmp_path):
    basicsr_plugins.register()
    tiny_runs.write_images(tmp_path / "images")
    return tiny_runs.parsed_options(tmp_path)


@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_right_options_pass_and_draw_nothing(tmp_path, options, recipe):
    given = tiny_runs.parsed_options(tmp_path, recipe)
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    check_run(given)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002


def test_a_stock_file_may_hold_anything(options):
    stock = {
        "model_type": "SRModel", "surprise": 1, "network_g": {"type": "EDSR", "odd": 1}, "train": {"odd": 1},
        "datasets": {"train": {"type": "PairedImageDataset", "odd": 1}}, "is_train": True,
    }  # fmt: skip
    check_run(stock)
    assert not uses_ours(stock)
    assert uses_ours(options)
    assert uses_ours({"network_g": {"type": "Restormer"}})


def test_a_stock_model_on_a_data_set_of_ours_is_checked_there(options):
    options["model_type"] = "SRModel"
    check_run(options)
    options["datasets"]["train"]["gt_siez"] = 3
    with pytest.raises(OptionError, match="gt_siez"):
        check_run(options)
    del options["datasets"]["train"]["gt_siez"]
    options["model_type"] = "SRModle"
    with pytest.raises(OptionError, match=r"model_type: unknown model 'SRModle'. Did you mean 'SRModel'"):
        check_run(options)


def test_a_model_that_resembles_ours_is_pointed_out(options):
    with pytest.raises(OptionError, match="Did you mean 'DCPTModel'"):
        check_run({"model_type": "DCPTModle", "datasets": {}})
    check_run({"model_type": "SomebodysOwnThing", "datasets": {}})


def test_a_renamed_model_is_known_under_its_new_name(options, monkeypatch):
    monkeypatch.setitem(registration._renamed["model"], "RestorationModel", "RestorationModel_basicsr_plugins")
    options["train"]["ema_deacy"] = 1
    check_run({**options, "datasets": {}})  # that name is BasicSR's now
    with pytest.raises(OptionError, match="ema_deacy"):
        check_run({**options, "model_type": "RestorationModel_basicsr_plugins"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"network_g": {"num_feat": "four"}}, r"network_g: SRVGGNetCompact cannot be built|network_g\.num_feat"),
        ({"network_g": {"type": None}}, r"network_g\.type"),
        ({"datasets": {"test": {"type": "DegradationDataset"}}}, r"datasets\.test"),
    ],
)
def test_what_a_network_or_a_section_says_itself(options, spoil, message):
    with pytest.raises(OptionError, match=message):
        check_run(tiny_runs.merge(options, spoil))


def test_stocks_own_parser_checks_and_fills_what_its_loops_read(tmp_path, options, monkeypatch):
    from basicsr.utils import options as stock_options

    given = tiny_runs.option_file(tmp_path / "images", val={"pbar": False})
    file = tiny_runs.write_options(tmp_path / "x.yml", given)
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(file)])
    opt, _ = stock_options.parse_options(str(tmp_path))
    assert opt["val"] == {"pbar": False, "save_img": False, "val_freq": float("inf")}
    tiny_runs.write_options(file, tiny_runs.merge(given, {"train": {"ema_deacy": 1}}))
    with pytest.raises(SystemExit, match=r"basicsr_plugins: train\.ema_deacy: unknown option"):
        stock_options.parse_options(str(tmp_path))


def test_stocks_own_parser_imports_what_the_file_names(tmp_path, options, monkeypatch):
    from basicsr.utils import options as stock_options

    (tmp_path / "noted_by_imports.py").write_text("seen = True\n")
    file = tiny_runs.write_options(
        tmp_path / "x.yml", tiny_runs.option_file(tmp_path / "images", imports=["noted_by_imports"])
    )
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(file)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    stock_options.parse_options(str(tmp_path))
    assert sys.modules.pop("noted_by_imports").seen
    (tmp_path / "noted_by_imports.py").unlink()
    with pytest.raises(SystemExit, match=r"imports\[0\]: 'noted_by_imports' cannot be imported"):
        stock_options.parse_options(str(tmp_path))


def test_several_gpus_without_a_launcher_are_one(capsys):
    from basicsr_plugins.launch.options import use_one_gpu

    opt = {"num_gpu": 4, "dist": False}
    use_one_gpu(opt)
    assert opt["num_gpu"] == 1
    assert "torchrun --nproc_per_node=4" in capsys.readouterr().err
    for given in ({"num_gpu": 4, "dist": True}, {"num_gpu": 1, "dist": False}, {"num_gpu": 0, "dist": False}):
        before = dict(given)
        use_one_gpu(given)
        assert given == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("num_gpu", [1, 4, "auto"])
@pytest.mark.parametrize("local_rank", [0, 1, 3, 5])
def test_under_torchrun_each_rank_takes_its_own_gpu_whatever_num_gpu_says(monkeypatch, num_gpu, local_rank):
    from basicsr_plugins.launch import options as launch_options

    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", taken.append)
    for key, value in (("WORLD_SIZE", 8), ("RANK", local_rank), ("LOCAL_RANK", local_rank)):
        monkeypatch.setenv(key, str(value))
    opt = {"num_gpu": launch_options._number_of_gpus({"num_gpu": num_gpu})}
    assert launch_options._init_distributed(None, opt)
    assert taken == [local_rank % 4, "nccl"]


def test_the_stock_parser_takes_one_gpu_for_a_recipe_of_ours(tmp_path, options, monkeypatch, capsys):
    from basicsr.utils import options as stock_options

    file = tiny_runs.write_options(tmp_path / "x.yml", tiny_runs.option_file(tmp_path / "images", num_gpu="auto"))
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(file)])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    opt, _ = stock_options.parse_options(str(tmp_path))
    assert opt["num_gpu"] == 1
    assert "8 GPUs and no launcher" in capsys.readouterr().err


def test_a_metric_that_does_not_say_which_way_it_is_better_is_asked_for_it(options, monkeypatch):
    def calculate_strange(img, img2):
        return 0.0

    registration.provides("metric")(calculate_strange)
    try:
        options["val"] = {"metrics": {"s": {"type": "calculate_strange"}}}
        with pytest.raises(OptionError, match=r"val\.metrics\.s\.better: this option is required"):
            check_options(options)
        options["val"]["metrics"]["s"]["better"] = "lower"
        check_options(options)
    finally:
        registration._provided["metric"].pop("calculate_strange")
        registration._registries["metric"]._obj_map.pop("calculate_strange")
