"""Progressive patches: the stages of Restormer's script, aligned cuts, checked settings."""

from __future__ import annotations

import pytest
import torch

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.training.progressive import ProgressivePatches

STAGES = {"iters": [4, 3, 2], "gt_sizes": [8, 12, 16], "batch_sizes": [4, 2, 1]}


def stage_by_counting(current_iter: int) -> int:
    done = 0
    for number, length in enumerate(STAGES["iters"]):
        done += length
        if current_iter <= done:
            return number
    return len(STAGES["iters"]) - 1


def test_stages_begin_where_restormers_script_begins_them():
    progressive = ProgressivePatches(STAGES)
    assert [progressive.stage(i) for i in range(1, 15)] == [stage_by_counting(i) for i in range(1, 15)]
    assert [progressive.stage(i) for i in (4, 5, 7, 8)] == [0, 1, 1, 2]


@pytest.mark.parametrize("scale", [1, 2])
def test_all_images_of_a_batch_are_cut_at_the_same_place(scale):
    lq = torch.arange(4 * 16 * 16, dtype=torch.float32).view(4, 1, 16, 16)
    gt = lq.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    batch = {"lq": lq, "gt": gt, "degradation_map": gt[:, 0].long(), "degradation": torch.arange(4)}
    progressive = ProgressivePatches({"iters": [1, 1], "gt_sizes": [8 * scale, 12 * scale], "batch_sizes": [4, 2]})
    places = set()
    for _ in range(20):
        cut = progressive.cut(batch, 2, scale)
        assert cut["lq"].shape == (2, 1, 12, 12)
        assert torch.equal(cut["gt"][..., ::scale, ::scale], cut["lq"])
        assert torch.equal(cut["degradation_map"], cut["gt"][:, 0].long())
        assert cut["degradation"].tolist() == [0, 1]
        places.add(float(cut["lq"][0, 0, 0, 0]))
    assert len(places) > 5
    assert batch["lq"].shape == (4, 1, 16, 16)


def test_patches_reach_every_edge():
    places = torch.arange(16 * 20, dtype=torch.float32).view(1, 1, 16, 20)
    progressive = ProgressivePatches({"iters": [1, 1], "gt_sizes": [13, 16], "batch_sizes": [1, 1]})
    corners = {int(progressive.cut({"lq": places, "gt": places}, 1)["gt"][0, 0, 0, 0]) for _ in range(800)}
    assert corners == {20 * top + left for top in range(4) for left in range(8)}
    for image in (places, places.mT):
        assert {progressive.cut({"lq": image, "gt": image}, 2)["lq"].shape for _ in range(40)} == {(1, 1, 16, 16)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"iters": None}, r"train\.progressive\.iters"),
        ({"gt_sizes": [8, 12]}, "same length"),
        ({"gt_sizes": [8, 12, "16"]}, r"train\.progressive\.gt_sizes: expected a list"),
        ({"batch_sizes": [4, 2, 0]}, "above 0"),
        ({"gt_size": [8]}, r"train\.progressive\.gt_size: unknown option"),
    ],
)
def test_wrong_settings(change, text):
    with pytest.raises(OptionError, match=text):
        ProgressivePatches({**STAGES, **change})


def test_a_missing_list():
    with pytest.raises(OptionError, match=r"train\.progressive\.batch_sizes: this option is required"):
        ProgressivePatches({"iters": [1], "gt_sizes": [8]})


def test_stages_that_the_loader_cannot_fill():
    progressive = ProgressivePatches(STAGES)
    progressive.check({"gt_size": 16, "batch_size_per_gpu": 4})
    with pytest.raises(OptionError, match=r"gt_sizes: 16 is more than the 8 .*Set gt_size: 16"):
        progressive.check({"gt_size": 8, "batch_size_per_gpu": 4})
    with pytest.raises(OptionError, match=r"batch_sizes: 4 is more than the 3 "):
        progressive.check({"gt_size": 16, "batch_size_per_gpu": 3})
    with pytest.raises(OptionError, match=r"8 is no multiple of scale: 3"):
        progressive.check({"gt_size": 16, "batch_size_per_gpu": 4}, scale=3)
