"""The SPN option files and fragments: every one is accepted, and keeps its base recipe's numbers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml

import basicsr_plugins
from basicsr_plugins.core.options import parse
from basicsr_plugins.core.registration import lookup, provided
from basicsr_plugins.launch.checking import check_options
from basicsr_plugins.negatives.ingredient import check_spn

OPTIONS = Path(__file__).resolve().parents[2] / "options"
FILES = sorted(path.stem for path in OPTIONS.glob("spn_*.yml"))
FRAGMENTS = yaml.safe_load((OPTIONS / "fragments" / "spn_tables.yml").read_text(encoding="utf-8"))

#: crop, batch per GPU, iterations, optimizer, rate, and what the milestones or the cosine end with
RECIPES = {
    "spn_edsr_x4": (192, 16, 300000, "Adam", 1e-4, [200000]),
    "spn_edsr_x2": (96, 16, 300000, "Adam", 1e-4, [200000]),
    "spn_swinir_light_x4": (256, 8, 250000, "Adam", 1e-4, [125000, 200000, 225000, 237500]),
    "spn_swinir_x4": (192, 4, 500000, "Adam", 2e-4, [250000, 400000, 450000, 475000]),
    "spn_ffanet_its": (240, 2, 500000, "Adam", 1e-4, 0),
    "spn_ffanet_reside6k": (240, 2, 500000, "Adam", 1e-4, 0),
    "spn_dehazeformer_t": (256, 32, 131100, "AdamW", 4e-4, 4e-6),
    "spn_dehazeformer_s": (256, 16, 262200, "AdamW", 2e-4, 2e-6),
    "spn_dehazeformer_b": (256, 16, 262200, "AdamW", 2e-4, 2e-6),
    "spn_nafnet_gopro": (256, 4, 200000, "AdamW", 1e-3, 1e-7),
    "spn_idt_rain200l": (128, 4, 180000, "Adam", 1e-4, [45000, 112500, 157500]),
    "spn_idt_rain200h": (128, 4, 180000, "Adam", 1e-4, [45000, 112500, 157500]),
}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    basicsr_plugins.register()


def load(name):
    return yaml.safe_load((OPTIONS / f"{name}.yml").read_text(encoding="utf-8"))


def without_files(opt):
    """The same options on a machine without data and without VGG weights."""
    opt = copy.deepcopy(opt)
    opt.update(is_train=True, datasets={})
    opt["path"]["pretrain_network_g"] = None
    opt["train"]["spn_opt"]["loss"]["weights"] = "random"
    return opt


def test_no_file_is_missing_from_the_table():
    assert sorted(RECIPES) == FILES


@pytest.mark.parametrize("name", FILES)
def test_accepted_by_the_checks(name):
    check_options(without_files(load(name)))


@pytest.mark.parametrize("name", FILES)
def test_keeps_the_base_recipe(name):
    opt = load(name)
    crop, batch, iterations, optimizer, rate, end = RECIPES[name]
    train, data = opt["train"], opt["datasets"]["train"]
    assert (data["gt_size"], data["batch_size_per_gpu"], train["total_iter"]) == (crop, batch, iterations)
    assert (train["optim_g"]["type"], train["optim_g"]["lr"]) == (optimizer, rate)
    schedule = train["scheduler"]
    assert schedule.get("milestones", schedule.get("eta_min")) == end
    if "T_max" in schedule:
        assert schedule["T_max"] == iterations
    spn = train["spn_opt"]
    ffanet = "ffanet" in name
    assert spn["loss"]["loss_weight"] == (1e-3 if ffanet else 1e-4)
    assert spn["negatives"]["steps"] == ([100, 200, 500, 1000] if ffanet else [100, 500, 1000, 2000])
    assert spn["negatives"]["decay"] == 0.1


@pytest.mark.parametrize("name", FILES)
def test_data_sets_are_declared(name):
    ours = provided("dataset")
    for phase, options in load(name)["datasets"].items():
        if options["type"] in ours:
            given = {key: value for key, value in options.items() if key != "phase"}
            parse(ours[options["type"]].Options, given, f"datasets.{phase}")


@pytest.mark.parametrize("name", list(FRAGMENTS))
def test_fragments_are_accepted(name):
    given = FRAGMENTS[name]
    if given is None:  # Table 6's first row: without SPN
        return
    given = copy.deepcopy(given)
    given.setdefault("loss", {"type": "SPNLoss"})["weights"] = "random"
    settings, _ = check_spn(given)
    assert settings.loss["type"] in provided("loss")


def test_fragments_cover_the_tables():
    rows = {
        "6": ["none", "random", "pretrained", "history"],
        "7": ["100", "500", "1000", "2000", "all"],
        "8": ["1e-2", "1e-3", "5e-4", "1e-4", "1e-5"],
        "9": ["0", "0.01", "0.1", "0.5", "0.9", "0.999"],
    }
    for table, names in rows.items():
        assert [key for key in FRAGMENTS if key.startswith(f"table_{table}_")] == [f"table_{table}_{n}" for n in names]


def test_rows_of_a_table_start_at_the_same_iteration():
    from basicsr_plugins.losses.spn_guard import SPNGuard

    for key, given in FRAGMENTS.items():
        if given is not None and key.startswith("table_"):
            guard = SPNGuard(**given.get("guard", {}))
            largest = max(given.get("negatives", {}).get("steps", [2000]))
            assert (guard.scale(1999, largest), guard.scale(2000, largest) > 0) == (0, True), key


@pytest.mark.parametrize("name", [name for name in FILES if "edsr" in name or "swinir" in name or "idt" in name])
def test_luma_stands_beside_rgb_where_the_paper_reports_luma(name):
    metrics = load(name)["val"]["metrics"]
    assert {key: options["test_y_channel"] for key, options in metrics.items()} == {
        "psnr": False, "ssim": False, "psnr_y": True, "ssim_y": True,
    }  # fmt: skip
    assert len({options["crop_border"] for options in metrics.values()}) == 1


def test_demo_trains(tmp_path):
    """The demo's own options, but three iterations on random images."""
    opt = yaml.safe_load((OPTIONS / "demo" / "spn_nafnet.yml").read_text(encoding="utf-8"))
    opt.update(is_train=True, num_gpu=0, dist=False, rank=0, world_size=1)
    opt["path"].update(models=str(tmp_path), training_states=str(tmp_path))
    opt["train"]["spn_opt"]["negatives"]["steps"] = [1, 2]
    model = lookup("model", opt["model_type"])(opt)
    for iteration in range(1, 5):
        gt = torch.rand(2, 3, 32, 32)
        model.feed_data({"lq": gt + 0.1 * torch.randn_like(gt), "gt": gt})
        model.optimize_parameters(iteration)
    assert model.get_current_log()["l_spn"] < 0
