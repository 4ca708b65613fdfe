"""2N iterations straight and N, a new process and N more are the same run, bit for bit."""

from __future__ import annotations

import shutil
import types

import pytest
import tiny_runs
import torch

from basicsr_plugins import stock
from basicsr_plugins.models.restoration_model import RestorationModel

EXTRAS = {
    "ema_decay": 0.9,
    "grad_clip": 1.0,
    "warmup_iter": 6,
    "scheduler": {"type": "MultiStepLR", "milestones": [3, 7], "gamma": 0.5},
}
#: an epoch has 4 images x ratio / batch of 2 iterations; the run is left after iteration 4 of 8
PLACES = {"boundary": 1, "middle": 3}


@pytest.fixture
def logs(monkeypatch):
    """Return the list that every iteration's losses and learning rate are written to."""
    found = []
    stock = RestorationModel.get_current_log

    def remember(self):
        found.append((self.last_iter, self.get_current_learning_rate(), dict(stock(self))))
        return stock(self)

    monkeypatch.setattr(RestorationModel, "get_current_log", remember)
    return found


def run(folder, name, total_iter, recipe, *arguments, **changes):
    options = tiny_runs.option_file(
        folder / "images", recipe, name=name, logger={"save_checkpoint_freq": 4},
        val={"val_freq": 3, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
    )  # fmt: skip
    options["datasets"]["val"] = tiny_runs.validation_set(folder / "images")
    options = tiny_runs.merge(tiny_runs.merge(options, {"train": {**EXTRAS, "total_iter": total_iter}}), changes)
    file = tiny_runs.write_options(folder / f"{name}.yml", options)
    assert tiny_runs.run_command("train", "-opt", file, *arguments) == 0
    return folder / "experiments" / name


def everything(root) -> dict:
    """Return every file of iteration 8, read."""
    found = {"state": torch.load(root / "training_states" / "8.state", weights_only=True)}
    for file in sorted((root / "models").glob("*_8*")):
        if file.is_dir():
            found[file.name] = (file / "adapter_model.safetensors").read_bytes()
        else:
            found[file.name] = torch.load(file, weights_only=True)
    return found


def compare(tmp_path, logs, recipe, **changes):
    # some libraries draw random numbers while they are imported, which a recipe does when it is first used
    tiny_runs.train(tiny_runs.make_model(tmp_path, recipe), range(1, 4))
    logs.clear()
    straight = run(tmp_path, "straight", 8, recipe, **changes)
    expected, logs[:] = list(logs), []
    run(tmp_path, "resumed", 4, recipe, **changes)
    for file in (tmp_path / "experiments" / "resumed" / "models").glob("*latest*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    resumed = run(tmp_path, "resumed", 8, recipe, "--auto_resume", **changes)
    assert [number for number, *_ in logs] == list(range(1, 9))
    assert tiny_runs.differences(expected, list(logs)) == []
    first, second = everything(straight), everything(resumed)
    assert len(first) > 1
    assert tiny_runs.differences(first, second) == []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_runs.write_images(tmp_path / "images")
    return tmp_path


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_resume(folder, logs, recipe, place):
    compare(folder, logs, recipe, datasets={"train": {"dataset_enlarge_ratio": PLACES[place]}})


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"accumulate": 3}},  # 4 lies within a window
        {"train": {"precision": "fp16"}},
        {"train": {"progressive": {"iters": [5, 5], "gt_sizes": [8, 16], "batch_sizes": [2, 1]}}},
        {"manual_seed": None},
        {"datasets": {"train": {"num_worker_per_gpu": 1, "prefetch_mode": "cpu"}}},
    ],
    ids=["accumulate", "fp16", "progressive", "drawn_seed", "worker"],
)
def test_resume_with(folder, logs, change, monkeypatch):
    seeds = iter([11, 11, 99])  # the third run is the resumed one: it must take its seed from the state
    monkeypatch.setattr("basicsr_plugins.launch.options.random", types.SimpleNamespace(randint=lambda *_: next(seeds)))
    compare(folder, logs, "plain", **tiny_runs.merge({"datasets": {"train": {"dataset_enlarge_ratio": 3}}}, change))


def test_resume_of_a_stock_data_set_that_draws_from_the_global_generators(folder, logs):
    paired = {
        "type": "PairedImageDataset", "dataroot_lq": str(folder / "images"), "io_backend": {"type": "disk"},
        "use_hflip": True, "use_rot": True, "degradations": None, "dataset_enlarge_ratio": 3,
    }  # fmt: skip
    compare(folder, logs, "plain", datasets={"train": paired})


def test_skipped_iterations_and_the_best_value_survive(folder, logs):
    root = run(folder, "best", 4, "plain", train={"skip_nonfinite": 3})
    state = torch.load(root / "training_states" / "4.state", weights_only=True)["basicsr_plugins"]
    assert state["best"]["v"]["psnr"]["iter"] in (3, 4)
    model = tiny_runs.make_model(folder, train={**EXTRAS, "skip_nonfinite": 3})
    state["skipped"] = 2
    whole = torch.load(root / "training_states" / "4.state", weights_only=True)
    whole["basicsr_plugins"] = state
    model.resume_training(whole)
    assert model.guard.skipped == 2
    assert model.best_metric_results == state["best"]


def test_stock_data_sets_with_loader_processes_say_that_a_resume_is_inexact(tmp_path, monkeypatch, caplog):
    model = tiny_runs.make_model(tmp_path)
    model.opt["datasets"]["train"]["num_worker_per_gpu"] = 2
    caplog.set_level("WARNING", logger="basicsr")
    stock.logger().propagate = True
    ours = types.SimpleNamespace(takes_virtual_index=True)
    for dataset, batches, said in ((ours, 3, 0), (object(), 0, 0), (object(), 3, 1)):
        caplog.clear()
        model._say_if_inexact(dataset, batches)
        assert len([text for text in caplog.messages if "Resuming inside an epoch: object draws" in text]) == said


class Draws(torch.nn.Module):
    """A loss with a generator of its own, as somebody may register one."""

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, output, target):
        return torch.rand((), generator=self.generator) * (output - target).abs().mean()

    def get_extra_state(self):
        return self.generator.get_state()

    def set_extra_state(self, state):
        self.generator.set_state(state)


def test_losses_with_a_state_go_on_where_they_were(folder, logs, monkeypatch):
    from basicsr.utils.registry import LOSS_REGISTRY

    monkeypatch.setitem(LOSS_REGISTRY._obj_map, "Draws", Draws)
    compare(folder, logs, "plain", train={"extra_losses": {"l_draws": {"type": "Draws"}}})
