"""A resume that does otherwise than the option file says, or than the run before did, says so in one line each."""

from __future__ import annotations

import pytest
import tiny_runs

from basicsr_plugins import stock
from basicsr_plugins.training.resume_notes import resume_notes, setting_in_force

OPTIONS = {
    "train": {"total_iter": 4, "scheduler": {"type": "CosineAnnealingLR", "T_max": 4}},
    "logger": {"save_checkpoint_freq": 2},
}
SEQUENTIAL = {
    "type": "SequentialLR",
    "schedulers": [{"type": "ConstantLR", "factor": 1.0}, {"type": "CosineAnnealingLR", "T_max": 4}],
    "milestones": [2],
}
CYCLE = {"type": "OneCycleLR", "max_lr": 0.1, "total_steps": 9}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_runs.write_images(tmp_path / "images")
    stock.logger().propagate = True  # its first call ends that, and caplog needs it
    return tmp_path


def run(folder, *arguments, **changes):
    options = tiny_runs.option_file(folder / "images", **tiny_runs.merge(OPTIONS, changes))
    file = tiny_runs.write_options(folder / "run.yml", options)
    return tiny_runs.run_command("train", "-opt", file, *arguments)


def notes(caplog):
    found = [record.getMessage() for record in caplog.records if "Resuming with other options" in record.getMessage()]
    caplog.clear()
    return [text.partition("options: ")[2] for text in found]


CASES = {
    "rate": ({"train": {"optim_g": {"type": "Adam", "lr": 0.5}}}, "train.optim_g.lr: 0.001 in the state, 0.5 in the"),
    "option": ({"train": {"optim_g": {**tiny_runs.ADAM, "weight_decay": 0.1}}}, "train.optim_g.weight_decay: 0 in the"),
    "type": ({"train": {"optim_g": {"type": "AdamW", "lr": 1e-3}}}, "train.optim_g.type: Adam in the state, AdamW in"),
    "schedule": ({"train": {"scheduler": {"T_max": 9}}}, "train.scheduler (optim_g).T_max: 4 in the state, 9 in the"),
    "batch": ({"train": {"accumulate": 2}}, "batch: 2 images a step when the state was written, 4 from here on."),
    "seed": ({"manual_seed": 3}, "manual_seed: 0 when the state was written, 3 from here on"),
    "data": ({"datasets": {"train": {"degradations": ["Haze", "Rain"]}}}, "datasets.train: its options are not those"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_difference_is_said_once(folder, caplog, case):
    caplog.set_level("INFO", logger="basicsr")
    assert run(folder, train={"total_iter": 2}) == 0
    changes, text = CASES[case]
    assert notes(caplog) == []
    run(folder, "--auto_resume", **changes)
    [found] = [note for note in notes(caplog) if note.startswith(text.split(":")[0])]
    assert found.startswith(text)


def test_another_optimizer_is_refused(folder, capsys):
    assert run(folder, train={"total_iter": 2}) == 0
    assert run(folder, "--auto_resume", train={"optim_g": {"type": "NAdam", "lr": 1e-3}}) == 1
    said = capsys.readouterr().err
    assert "written with train.optim_g.type: Adam, whose state the option file's NAdam cannot" in said


@pytest.mark.parametrize("scheduler", [OPTIONS["train"]["scheduler"], SEQUENTIAL, CYCLE], ids=lambda s: s["type"])
def test_unchanged_options_say_nothing(folder, caplog, scheduler):
    caplog.set_level("INFO", logger="basicsr")
    options = tiny_runs.option_file(folder / "images", **OPTIONS)
    options["train"].update(optim_g={"type": "AdamW", "lr": 1e-3}, scheduler=scheduler, warmup_iter=3)
    for total, arguments in ((2, ()), (4, ("--auto_resume",))):
        options["train"]["total_iter"] = total
        file = tiny_runs.write_options(folder / "run.yml", options)
        assert tiny_runs.run_command("train", "-opt", file, *arguments) == 0
        assert notes(caplog) == []


def test_what_was_kept_is_said_again_at_the_next_resume():
    before, now = {"optim_g": {"type": "Adam", "lr": "0.1"}}, {"optim_g": {"type": "AdamW", "lr": "0.2"}}
    recorded, present = ({"optimizers": of, "schedulers": {}, "batch": 1} for of in (before, now))
    force = setting_in_force(recorded, present)
    assert force["optimizers"] == {"optim_g": {"type": "AdamW", "lr": "0.1"}}
    assert len(resume_notes(recorded, present)) == 2
    assert resume_notes(force, present) == [
        "train.optim_g.lr: 0.1 in the state, 0.2 in the option file; the state's is kept."
    ]


def test_states_of_earlier_versions_are_not_compared():
    assert resume_notes({}, {"batch": 3, "optimizers": {}, "manual_seed": 1, "data": "x"}) == []
