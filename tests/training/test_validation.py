"""Records in order, metrics that say which way is better, tables, names of saved images."""

from __future__ import annotations

import math

import pytest
import tiny_runs
from torch.utils.data import DataLoader, Dataset

from basicsr_plugins.training import validation


class Images(Dataset):
    """Images, some of which share a name; the second has no clean one."""

    def __init__(self, names=("a", "b", "a", "c", "a")):
        self.opt, self.names = {"name": "five", "phase": "val"}, names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        batch = tiny_runs.make_batch(1, 12, seed=index)
        item = {"lq": batch["lq"][0], "lq_path": f"folder{index}/{self.names[index]}.png"}
        return item if index == 1 else {**item, "gt": batch["gt"][0]}


PSNR = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}


def model(tmp_path, **val):
    return tiny_runs.make_model(tmp_path, val={"val_freq": 1, "metrics": PSNR, **val})


def test_one_record_per_image_in_order(tmp_path):
    records = validation.validate(model(tmp_path, pbar=True), DataLoader(Images(), batch_size=1), 7, save_img=True)
    assert [record["index"] for record in records] == [0, 1, 2, 3, 4]
    assert [record["name"] for record in records] == ["a", "b", "a", "c", "a"]
    assert [sorted(record["metrics"]) for record in records] == [["psnr"], [], ["psnr"], ["psnr"], ["psnr"]]
    saved = sorted(path.name for path in tmp_path.rglob("*.png"))
    assert saved == ["a_2_7.png", "a_4_7.png", "a_7.png", "b_7.png", "c_7.png"]


def test_means_are_over_the_images_that_have_the_metric():
    records = [{"metrics": {"x": 1.0}}, {"metrics": {}}, {"metrics": {"x": 4.0, "y": 3.0}}]
    assert validation.average_metrics(records) == {"x": 2.5, "y": 3.0}
    assert validation.average_metrics([]) == {}


@pytest.mark.parametrize(
    ("options", "lower"),
    [
        ({"type": "calculate_psnr"}, False),
        ({"type": "calculate_psnr", "better": "lower"}, True),
        ({"type": "calculate_background_error"}, True),
        ({"type": "calculate_background_error", "better": "higher"}, False),
        ({"type": "unknown"}, False),
    ],
)
def test_which_way_is_better(options, lower):
    assert validation.metric_is_lower_better(options) is lower


def test_the_table():
    table = validation.format_table({"one": {"psnr": 20.0, "ssim": 0.5}, "second": {"psnr": 30.0}})
    lines = table.splitlines()
    assert lines[0].split() == ["psnr", "ssim"]
    assert lines[1].split() == ["one", "20.0000", "0.5000"]
    assert lines[2].split() == ["second", "30.0000", "-"]
    assert lines[3].split() == ["average", "25.0000", "0.5000"]
    assert len({len(line) for line in lines}) == 1


def test_a_metric_that_is_not_a_number_is_never_the_best(tmp_path):
    trained = model(tmp_path)
    for iteration, value in ((1, math.nan), (2, 3.0), (3, math.nan)):
        trained.metric_results = {"psnr": value}
        improved = trained._remember_best("five", iteration)
        assert improved == ([] if iteration == 3 else ["psnr"])
    assert trained.best_metric_results["five"]["psnr"]["val"] == 3.0
