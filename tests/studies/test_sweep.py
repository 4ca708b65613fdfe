"""The rain sweep: its grid, what is skipped, resumed and refused, and one small sweep from start to figure."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from basicsr_plugins.core.errors import OptionError, PluginError
from basicsr_plugins.studies import sweep as module
from basicsr_plugins.studies.sweep import collect, plan, read_sweep, run_sweep, summary
from basicsr_plugins.studies.tables import read_csv

SWEEP = {
    "name": "tiny",
    "backgrounds": [2, 4],
    "rain": {"small": {"preset": "small"}, "medium": {"preset": "medium"}},
    "unseen": {"wide": {"preset": "random"}},
    "seeds": [0, 1],
    "options": {
        "num_gpu": 0,
        "network_g": {"type": "RestorationResNet", "num_feat": 4, "num_block": 1},
        "datasets": {
            "train": {"tile_size": 32, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0},
            "val": {"num_backgrounds": 2},
        },
        "train": {"total_iter": 3, "optim_g": {"type": "Adam", "lr": 0.001}, "pixel_opt": {"type": "L1Loss"}},
    },
}


@pytest.fixture
def sweep_file(tmp_path):
    def write(**changes):
        for part in ("train", "val"):
            (tmp_path / part).mkdir(exist_ok=True)
            for index in range(2):
                image = np.random.default_rng(index).integers(60, 160, (16, 16, 3), dtype=np.uint8)
                cv2.imwrite(str(tmp_path / part / f"{index}.png"), cv2.resize(image, (96, 64)))
        categories = {"photos": {"train": str(tmp_path / "train"), "val": str(tmp_path / "val")}}
        path = tmp_path / "sweep.yml"
        path.write_text(yaml.safe_dump({**SWEEP, "categories": categories, **changes}))
        return path

    return write


def fake_training(monkeypatch, fails=(), scores=None):
    """Replace the training process by one that leaves results at once; return the list of its commands."""
    commands = []

    def run(command, **_):
        commands.append(command)
        option_file = command[command.index("-opt") + 1]
        options = yaml.safe_load(Path(option_file).read_text(encoding="utf-8"))
        if any(name in options["name"] for name in fails):
            return subprocess.CompletedProcess(command, 1)
        folder = Path(options["path"]["experiments_root"])
        folder.mkdir(parents=True, exist_ok=True)
        tests = [section["name"] for key, section in options["datasets"].items() if key != "train"]
        value = scores(options) if scores else 0.1
        found = {name: {"iteration": 4, "e_r": value, "e_r_oracle": 0.5, "e_b": 0.02} for name in tests}
        (folder / "study_results.json").write_text(json.dumps(found))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(module.subprocess, "run", run)
    return commands


def test_grid_has_every_point_with_equal_iterations_and_nested_subsets(sweep_file, tmp_path):
    runs = plan(read_sweep(sweep_file()), tmp_path / "out")
    assert len(runs) == len({run.name for run in runs}) == 2 * 2 * 2
    for run in runs:
        train = run.options["datasets"]["train"]
        assert run.options["train"]["total_iter"] == 3
        # one epoch has at least total_iter batches, whatever N is
        assert train["num_backgrounds"] * train["dataset_enlarge_ratio"] >= 3 * 2
        assert train["subset_seed"] == run.options["manual_seed"] == run.point["seed"]
        assert train["rain"] == SWEEP["rain"][run.point["rain"]]
        tests = [run.options["datasets"][f"val_{number}"] for number in (1, 2)]
        assert [(test["name"], test["rain"]) for test in tests] == [
            ("seen", train["rain"]),
            ("unseen_wide", {"preset": "random"}),
        ]
    assert "psnr" in runs[0].options["val"]["metrics"]


def test_without_unseen_rain_the_other_ranges_are_unseen(sweep_file, tmp_path):
    runs = plan(read_sweep(sweep_file(unseen={})), tmp_path)
    assert {run.point["rain"]: run.tests for run in runs} == {
        "small": ("seen", "unseen_medium"),
        "medium": ("seen", "unseen_small"),
    }


def test_finished_runs_are_skipped_and_failed_ones_are_named_and_repeated(sweep_file, tmp_path, monkeypatch, capsys):
    path, out = sweep_file(), tmp_path / "out"
    commands = fake_training(monkeypatch, fails=["n4_medium_seed1"])
    assert run_sweep(path, out) == 1
    assert len(commands) == 8
    assert all("--auto_resume" in command for command in commands)
    assert "tiny_photos_n4_medium_seed1 failed" in capsys.readouterr().err
    assert len(read_csv(out / "sweep.csv")) == 7 * 2
    commands = fake_training(monkeypatch)
    assert run_sweep(path, out) == 0
    assert len(commands) == 1
    assert "n4_medium_seed1" in commands[0][commands[0].index("-opt") + 1]
    commands = fake_training(monkeypatch)
    assert run_sweep(path, out) == 0
    assert commands == []
    assert len(read_csv(out / "sweep.csv")) == 8 * 2
    assert (out / "sweep.png").stat().st_size > 5000


def test_results_from_the_middle_of_a_training_do_not_count(sweep_file, tmp_path, monkeypatch):
    runs = plan(read_sweep(sweep_file()), tmp_path)
    run = runs[0]
    run.folder.mkdir(parents=True)
    for found, finished in (
        ({"seen": {"iteration": 2}, "unseen_wide": {"iteration": 2}}, False),
        ({"seen": {"iteration": 4}}, False),
        ({"seen": {"iteration": 4}, "unseen_wide": {"iteration": 4}}, True),
    ):
        (run.folder / "study_results.json").write_text(json.dumps(found))
        assert (run.results() is not None) is finished
    (run.folder / "study_results.json").write_text('{"seen": {"itera')
    assert run.results() is None


def test_runs_of_another_sweep_file_are_not_mixed_in(sweep_file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    fake_training(monkeypatch)
    run_sweep(sweep_file(), out)
    options = {**SWEEP["options"], "network_g": {"type": "UNet", "num_feat": 4, "num_level": 2}}
    with pytest.raises(OptionError, match="other options"):
        run_sweep(sweep_file(options=options), out)
    assert run_sweep(sweep_file(seeds=[0, 1, 2]), out) == 0  # more of the same is fine


def test_summary_averages_over_seeds(sweep_file, tmp_path, monkeypatch):
    fake_training(monkeypatch, scores=lambda options: 0.1 + options["manual_seed"])
    run_sweep(sweep_file(), tmp_path / "out")
    means = summary(collect(plan(read_sweep(sweep_file()), tmp_path / "out")))
    assert len(means) == 2 * 2 * 2
    assert all(row["seeds"] == 2 and row["e_r"] == pytest.approx(0.6) for row in means)


def test_chosen_files_are_listed_for_the_data_set(sweep_file, tmp_path, monkeypatch):
    path = sweep_file()
    content = yaml.safe_load(path.read_text())
    content["categories"]["photos"]["train_files"] = ["1.png"]
    path.write_text(yaml.safe_dump(content))
    commands = fake_training(monkeypatch)
    run_sweep(path, tmp_path / "out")
    options = yaml.safe_load(Path(commands[0][commands[0].index("-opt") + 1]).read_text(encoding="utf-8"))
    assert Path(options["datasets"]["train"]["meta_info_file"]).read_text(encoding="utf-8") == "1.png\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"background": [2]}, "Did you mean 'backgrounds'"),
        ({"backgrounds": []}, "different numbers above 0"),
        ({"backgrounds": [2, 2]}, "different numbers above 0"),
        ({"rain": {}}, "must not be empty"),
        ({"categories": {"photos": {"train": "x"}}}, "photos.val: this option is required"),
        ({"rain": {"small": {"preset": "smal"}}}, "'smal'"),
        ({"rain": {"small": {"preset": "small"}}, "unseen": {}}, "second range"),
        ({"backgrounds": [2, 500]}, "500 wanted"),
        ({"options": {**SWEEP["options"], "train": {"total_iter": 3, "optm_g": {}}}}, "Did you mean 'optim_g'"),
        ({"options": {"train": {}}}, "options.datasets: this option is required"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(sweep_file, tmp_path, monkeypatch, changes, message):
    commands = fake_training(monkeypatch)
    with pytest.raises(PluginError, match=message):
        run_sweep(sweep_file(**changes), tmp_path / "out")
    assert commands == []


@pytest.mark.slow
def test_a_small_sweep_runs_from_start_to_figure_and_goes_on_where_it_was_broken_off(sweep_file, tmp_path, capsys):
    path, out = sweep_file(backgrounds=[2], rain={"small": {"preset": "small"}}, seeds=[0]), tmp_path / "out"
    assert run_sweep(path, out) == 0, capsys.readouterr()
    rows = read_csv(out / "sweep.csv")
    assert [row["test"] for row in rows] == ["seen", "unseen_wide"]
    assert all(row["e_r_oracle"] > 0 and 0 <= row["e_b"] < 1 and row["psnr"] > 5 for row in rows)
    run = plan(read_sweep(path), out)[0]
    assert (run.folder / "models" / "net_g_latest.pth").is_file()

    # broken off between the last checkpoint and its validation: the next start only validates
    (run.folder / "study_results.json").unlink()
    before = run.log.read_text()
    assert run_sweep(path, out) == 0
    assert "Resuming training" in run.log.read_text()[len(before) :]
    assert read_csv(out / "sweep.csv") == rows
    shutil.rmtree(run.folder)


def test_the_command_is_the_launcher_of_this_interpreter(sweep_file, tmp_path, monkeypatch):
    commands = fake_training(monkeypatch)
    run_sweep(sweep_file(), tmp_path / "out")
    assert commands[0][:4] == [sys.executable, "-m", "basicsr_plugins.cli.main", "train"]
