"""The shipped option and sweep files of the studies hold nothing that the checks refuse, and build."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from basicsr_plugins import register
from basicsr_plugins.core.safe_yaml import load_yaml
from basicsr_plugins.launch.checking import check_options
from basicsr_plugins.studies.sweep import plan, read_sweep

OPTIONS = Path(__file__).parents[2] / "options"


@pytest.fixture
def photos(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), cv2.resize(image, (1100, 1100)))
    return tmp_path


def on(photos, opt):
    """The option file on one photograph, as BasicSR completes it."""
    for phase, section in opt["datasets"].items():
        section.update(phase=phase.split("_")[0], dataroot_gt=str(photos))
        if "num_backgrounds" in section:
            section["num_backgrounds"] = min(section["num_backgrounds"], 4)
    return {**opt, "is_train": True, "dist": False, "rank": 0, "world_size": 1}


@pytest.mark.parametrize("path", sorted(OPTIONS.glob("study_*.yml")), ids=lambda path: path.stem)
def test_option_files_pass_the_checks(path, photos):
    register()
    opt = load_yaml(path)
    for key in ("network_g", "network_prior"):
        if opt.get(key, {}).get("type") == "VQGAN":  # the full size builds in many seconds: same keys, fewer channels
            opt[key] = {**opt[key], "embed_dim": 8, "ddconfig": {**opt[key]["ddconfig"], "ch": 32, "z_channels": 8}}
    if "pretrain_network_prior" in opt["path"]:
        opt["path"]["pretrain_network_prior"] = str(photos / "prior.pth")
        torch.save({}, photos / "prior.pth")
    check_options(on(photos, opt))


@pytest.mark.parametrize("path", sorted(OPTIONS.glob("sweeps/*.yml")), ids=lambda path: path.stem)
def test_sweep_files_pass_the_checks(path, photos):
    register()
    runs = plan(read_sweep(path), photos / "out")
    assert len({run.name for run in runs}) == len(runs)
    run = runs[-1]
    run.options["datasets"]["train"].pop("meta_info_file", None)
    check_options(on(photos, run.options))
