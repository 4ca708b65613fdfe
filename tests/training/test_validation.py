"""Records in order, metrics that say which way is better, tables, names of saved images."""

from __future__ import annotations

import logging
import math
import types
import unicodedata

import numpy as np
import pytest
import tiny_runs
from torch.utils.data import DataLoader, Dataset

from basicsr_plugins.core import registration
from basicsr_plugins.metrics.direction import lower_is_better
from basicsr_plugins.training import validation
from basicsr_plugins.training.pictures import Pictures


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


CLASHING = ("a", "a", "a_1", "A", "é", "e\u0301")


def test_no_picture_overwrites_another_one_in_any_data_set(tmp_path):
    """Names that clash, that look like the way out of a clash, that differ in case or in how an accent is written."""
    trained = model(tmp_path)
    for name in ("one", "two", "one"):  # final weights may be validated again: the same names
        images = Images(CLASHING)
        images.opt["name"] = name
        validation.validate(trained, DataLoader(images, batch_size=1), 7, save_img=True)
    saved = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")]
    assert len(saved) == len({unicodedata.normalize("NFC", name).casefold() for name in saved}) == 12
    assert {"a_7.png", "a_1_7.png", "a_1_2_7.png", "A_3_7.png"} < {path.name for path in tmp_path.rglob("*.png")}


def test_tests_keep_the_names_of_the_images_in_every_data_set(tmp_path):
    pictures = Pictures({"path": {"visualization": str(tmp_path)}, "is_train": False, "val": {}, "name": "run"})
    for dataset in ("one", "two"):
        pictures.begin(dataset, "run")
        for index in range(2):
            pictures.start_image("a", index)
            pictures.save(np.zeros((4, 4, 3), np.uint8))
    saved = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert saved[0] == "one/a_1_run.png"
    assert saved[1] == "one/a_run.png"
    assert saved[3] == "two/a_run.png"


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
        ({"type": "calculate_ssim"}, False),
        ({"type": "calculate_niqe"}, True),
        ({"type": "calculate_niqe", "better": "higher"}, False),
        ({"type": "calculate_rain_removal"}, False),
        ({"type": "calculate_rain_removal", "form": "ratio"}, False),
        ({"type": "calculate_rain_removal", "form": "residual"}, True),
        ({"type": "calculate_pyiqa", "metric": "lpips"}, True),
        ({"type": "calculate_pyiqa", "metric": "musiq"}, False),
    ],
)
def test_which_way_is_better(options, lower, monkeypatch):
    scorers = {"lpips": types.SimpleNamespace(lower_better=True), "musiq": types.SimpleNamespace(lower_better=False)}
    monkeypatch.setattr("basicsr_plugins.metrics.pyiqa_metric._scorer", lambda metric, *_: scorers[metric])
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


def test_every_metric_of_ours_says_which_way_it_is_better():
    for name, metric in registration.provided("metric").items():
        assert name == "calculate_pyiqa" or lower_is_better({"type": name}, metric) is not None, name


def test_the_worst_of_a_metric_that_is_better_when_lower_is_not_kept(tmp_path):
    trained = model(tmp_path, metrics={"niqe": {"type": "calculate_niqe", "crop_border": 0}})
    for iteration, value, improves in ((1, 5.0, True), (2, 6.0, False), (3, 4.0, True)):
        trained.metric_results = {"niqe": value}
        assert trained._remember_best("five", iteration) == (["niqe"] if improves else [])
    assert trained.best_metric_results["five"]["niqe"] == {"better": "lower", "val": 4.0, "iter": 3}


def records_of(*values):
    return [{"name": str(i), "metrics": {} if v is None else {"psnr": v}} for i, v in enumerate(values)]


def test_a_perfect_image_does_not_end_the_search_for_the_best(tmp_path):
    trained = model(tmp_path)
    runs = [((30.0, math.inf), True), ((31.0, math.inf), True), ((30.5, math.inf), False),
            ((45.0, 45.0), False), ((math.inf, math.inf), True), ((31.0, math.inf), False)]  # fmt: skip
    for iteration, (values, improves) in enumerate(runs):
        records = records_of(*values)
        trained.metric_results = validation.average_metrics(records)
        trained.infinite = validation.infinite_images(records)
        assert trained._remember_best("five", iteration) == (["psnr"] if improves else []), values
    assert validation.average_metrics(records_of(math.inf, 30.0, 40.0)) == {"psnr": 35.0}
    assert validation.average_metrics(records_of(math.inf)) == {"psnr": math.inf}


def test_images_that_the_mean_leaves_out_are_named():
    notes = validation.metric_notes(records_of(20.0, None, math.inf, None), ["psnr"])
    assert len(notes) == 2
    assert notes[0].startswith("psnr: no value for 2 of 4 images, which the mean leaves out (first: 1)")
    assert notes[1].startswith("psnr: infinite for 1 of 4 images")
    assert validation.metric_notes(records_of(20.0, 30.0), ["psnr"]) == []


def test_an_image_too_small_for_ssim_is_told_of(tmp_path, caplog):
    class Small(Images):
        def __getitem__(self, index):
            batch = tiny_runs.make_batch(1, 12 if index else 8, seed=index)
            return {"lq": batch["lq"][0], "gt": batch["gt"][0], "lq_path": f"{self.names[index]}.png"}

    trained = model(tmp_path, metrics={"ssim": {"type": "calculate_ssim", "crop_border": 0}})
    trained.opt["datasets"]["val"] = {"name": "five"}
    logging.getLogger("basicsr").propagate = True
    with caplog.at_level(logging.INFO, "basicsr"):
        trained.nondist_validation(DataLoader(Small(("tiny", "b")), batch_size=1), 1, None, save_img=False)
    assert "ssim: no value for 1 of 2 images" in caplog.text
    assert "(first: tiny)" in caplog.text
