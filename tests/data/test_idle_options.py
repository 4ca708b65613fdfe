"""An option of a data set that would do nothing beside the others is refused; what a mix is asked for, it returns."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import lookup

PAIRED = {"type": "PairedRuleDataset", "dataroot_lq": "lq", "dataroot_gt": "gt"}
DEGRADED = {"type": "DegradationDataset", "dataroot_gt": "gt", "degradations": ["Haze"]}
RAIN = {"type": "RainSynthesisDataset", "dataroot_gt": "gt"}
MIX = {"type": "AllInOneDataset", "children": [DEGRADED]}

REFUSED = [
    ({**DEGRADED, "multiple_of": 8}, "multiple_of: .*training crops"),
    ({**DEGRADED, "phase": "val", "gt_size": 32, "multiple_of": 8}, "multiple_of: .*gt_size"),
    ({**DEGRADED, "cache_limit_gb": 2.0}, "cache_limit_gb: .*cache: ram"),
    ({**DEGRADED, "io_backend": {"type": "lmdb"}, "recursive": True}, "recursive: .*lmdb brings its own list"),
    ({**DEGRADED, "io_backend": {"type": "lmdb"}, "meta_info_file": "x"}, "meta_info_file: .*lmdb brings its own list"),
    ({**DEGRADED, "io_backend": {"type": "disk", "client": 1}}, "io_backend.client: only `type` is read"),
    ({**DEGRADED, "meta_info_file": "x", "recursive": True}, "recursive: .*meta_info_file names the files"),
    ({**DEGRADED, "std": [0.5, 0, 0.5]}, "std: images are divided by it"),
    ({**DEGRADED, "verify": -1}, "verify: "),
    ({**DEGRADED, "depth_far": "black"}, "depth_far: .*dataroot_depth"),
    ({**DEGRADED, "degradations": ["Rain"], "dataroot_depth": "x"}, "dataroot_depth: none of the degradations takes"),
    ({**DEGRADED, "mask_threshold": 0.5}, "mask_threshold: .*return_mask"),
    *(({**DEGRADED, "degradations": [{"type": "Haze", "weight": 2}], "assign": assign}, "degradations: haze has a")
      for assign in ("cycle", "all")),
    ({**PAIRED, "list_order": "lq_gt"}, "list_order: .*pair: txtlist"),
    ({**PAIRED, "lq_half": "right"}, "lq_half: .*pair: concat"),
    ({**PAIRED, "mat_key_lq": "a"}, "mat_key_lq: .*pair: mat"),
    ({**PAIRED, "pair": "concat"}, "dataroot_gt: .*one picture holds both"),
    ({**PAIRED, "pair": "txtlist", "pair_list": "x", "recursive": True}, "recursive: .*names the images"),
    ({**PAIRED, "pair": "mat", "unpaired": "skip"}, "unpaired: .*by its place"),
    ({**RAIN, "degradations": ["Haze"]}, "degradations: .*rain is the one"),
    ({**RAIN, "gt_size": 64}, "gt_size: .*side tile_size"),
    ({**RAIN, "tile": "none", "tile_size": 64}, "tile_size: .*whole images"),
    *(({**MIX, "children": [{**DEGRADED, key: value}]}, rf"children\[0\].{key}: it belongs to the mix")
      for key, value in (("seed", 3), ("phase", "val"), ("num_worker_per_gpu", 2), ("dataset_enlarge_ratio", 9))),
]  # fmt: skip


@pytest.mark.parametrize(("opt", "message"), REFUSED, ids=[message.split(":")[0] for _, message in REFUSED])
def test_an_option_that_would_do_nothing_is_refused(opt, message):
    with pytest.raises(OptionError, match=f"datasets.train.*{message}"):
        lookup("dataset", opt["type"]).plan(opt, "datasets.train")


def test_defaults_may_be_written():
    plan = lookup("dataset", "PairedRuleDataset").plan
    plan({**PAIRED, "list_order": "gt_lq", "lq_half": "left", "mat_key_lq": None, "multiple_of": 1, "recursive": False})


@pytest.fixture
def photographs(tmp_path):
    (tmp_path / "gt").mkdir()
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "gt" / f"{number}.png"), image)
    return {"dataroot_gt": str(tmp_path / "gt"), "gt_size": 32}


def test_depth_maps_reach_the_regions_of_cutmix(tmp_path, photographs):
    (tmp_path / "depth").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "depth" / f"{number}.png"), np.full((40, 40), 255 * number, np.uint8))
    opt = {
        **DEGRADED, **photographs, "name": "d", "phase": "train", "seed": 0, "dataroot_depth": str(tmp_path / "depth"),
        "degradations": [{"type": "Haze", "beta": 2.0}, {"type": "Haze", "beta": 2.0}], "cutmix": {"probability": 1},
    }  # fmt: skip
    dataset = lookup("dataset", opt["type"])(opt)
    changed = {
        path["gt_path"][-5]: not torch.allclose(path["lq"], path["gt"], atol=0.02)
        for path in map(dataset.__getitem__, range(2))
    }
    assert changed == {"0": False, "1": True}  # what is near has no haze


def mix(photographs, phase, *asked):
    own = [{**DEGRADED, **photographs, "degradations": [{"type": "Rain"}], **extras} for extras in asked]
    opt = {"type": "AllInOneDataset", "name": "m", "phase": phase, "children": own}
    return lookup("dataset", "AllInOneDataset")(opt)


def test_a_mix_keeps_the_extras_of_its_children(photographs):
    both = {"return_mask": True, "return_params": True}
    for phase in ("train", "val"):
        dataset = mix(photographs, phase, both, both)
        assert {"rain_mask", "params"} <= set(dataset[0])
        assert dataset[0]["rain_mask"].shape == (1, 32, 32)
    dataset = mix(photographs, "val", both, {})
    assert ["params" in dataset[index] for index in (0, len(dataset) - 1)] == [True, False]
    with pytest.raises(OptionError, match=r"children\[0\].return_mask: .*children\[1\] returns no rain_mask"):
        mix(photographs, "train", both, {})


def test_a_rain_set_in_a_mix_gives_its_mask_away_in_validation_alone(photographs):
    rain = {**RAIN, "dataroot_gt": photographs["dataroot_gt"], "tile_size": 32}
    for phase, kept in (("train", False), ("val", True)):
        own = [rain, {**DEGRADED, **photographs}]
        dataset = lookup("dataset", "AllInOneDataset")({**MIX, "name": "m", "phase": phase, "children": own})
        assert ("rain_mask" in dataset[0]) is kept
