"""NaN and infinity: where they came from is said, the weights are as they were, skips are counted."""

from __future__ import annotations

import pytest
import tiny_runs
import torch
from torch import nn

from basicsr_plugins.core.errors import TrainingError
from basicsr_plugins.training.finite import FiniteGuard

BROKEN = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("value", BROKEN)
def test_the_message_names_iteration_loss_files_and_data(value):
    losses = {"l_pix": torch.tensor(0.3), "l_seg": torch.tensor(value)}
    batch = {"lq": torch.tensor([0.1, value]), "gt": torch.zeros(2), "degradation": torch.tensor([1, 2])}
    with pytest.raises(TrainingError) as caught:
        FiniteGuard().accepts(losses, 120, batch, ["a/1.png", "a/2.png"])
    text = str(caught.value)
    for part in ("Iteration 120", "l_seg", "a/1.png, a/2.png", "NaN or infinite values: lq", "skip_nonfinite"):
        assert part in text
    assert "l_pix" not in text


def test_finite_losses_pass():
    guard = FiniteGuard()
    assert guard.accepts({"l": torch.tensor(1e30)}, 1, {}, [])
    assert guard.skipped == 0


def broken_batch(seed: int) -> dict:
    batch = tiny_runs.make_batch(seed=seed)
    batch["lq"][0, 0, 0, 0] = float("nan")
    return batch


@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_training_stops_and_nothing_has_moved(tmp_path, recipe):
    model = tiny_runs.make_model(tmp_path, recipe, train={"ema_decay": 0.9})
    tiny_runs.train(model, [1, 2])
    before = tiny_runs.weights(model)
    batch = broken_batch(3)
    with pytest.raises(TrainingError, match=r"Iteration 3: l_.* = nan\..*lq_3_0\.png"):
        tiny_runs.train(model, [3], batch)
    moved = tiny_runs.differences(before, tiny_runs.weights(model))
    assert [key for key in moved if "running_" not in key and "num_batches" not in key] == []


@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_a_skipped_iteration_leaves_no_trace(tmp_path, recipe):
    options = {"train": {"skip_nonfinite": 2, "ema_decay": 0.9}}
    skipping = tiny_runs.make_model(tmp_path, recipe, **options)
    tiny_runs.train(skipping, [1])
    tiny_runs.train(skipping, [2], broken_batch(2))
    tiny_runs.train(skipping, [3])
    direct = tiny_runs.make_model(tmp_path, recipe, **options)
    tiny_runs.train(direct, [1])
    direct.update_learning_rate(2)
    tiny_runs.train(direct, [3])
    left = tiny_runs.differences(tiny_runs.weights(direct), tiny_runs.weights(skipping))
    assert [key for key in left if "num_batches" not in key] == []
    assert skipping.guard.skipped == 1
    tiny_runs.train(skipping, [4], broken_batch(4))
    with pytest.raises(TrainingError, match="2 such iterations had been skipped"):
        tiny_runs.train(skipping, [5], broken_batch(5))


def test_a_skipped_iteration_is_no_collapse_of_spn(tmp_path):
    guard = {"warmup_iter": 0, "window": 2, "check_every": 1}
    model = tiny_runs.make_model(tmp_path, "spn", train={"skip_nonfinite": 1, "spn_opt": {"guard": guard}})
    tiny_runs.train(model, range(1, 5))
    before = model.spn.guard.state_dict()
    tiny_runs.train(model, [5], broken_batch(5))
    assert model.spn.guard.state_dict() == before
    tiny_runs.train(model, range(6, 10))
    assert model.spn.guard.factor == 1.0
    assert model.spn.guard.observed == before["observed"] + 4


def test_batchnorm_statistics_are_restored(tmp_path):
    model = tiny_runs.make_model(tmp_path, train={"skip_nonfinite": 1})
    norm = nn.BatchNorm2d(3)
    model.net_g.add_module("norm", norm)
    forward = model.net_g.forward
    model.net_g.forward = lambda x: norm(forward(x))
    tiny_runs.train(model, [1])
    before = norm.running_mean.clone()
    tiny_runs.train(model, [2], broken_batch(2))
    assert torch.equal(norm.running_mean, before)


def test_gradients_that_are_not_finite_stop_before_the_step(tmp_path):
    model = tiny_runs.make_model(tmp_path)
    next(model.net_g.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    before = tiny_runs.weights(model)
    with pytest.raises(TrainingError, match="losses are finite, the gradients' norm is nan"):
        tiny_runs.train(model, [1])
    assert tiny_runs.differences(before, tiny_runs.weights(model)) == []
    model.guard.allowed = 5
    tiny_runs.train(model, [2])
    assert tiny_runs.differences(before, tiny_runs.weights(model)) == []
    assert model.guard.skipped == 2


def test_a_broken_iteration_drops_its_whole_accumulation_window(tmp_path):
    model = tiny_runs.make_model(tmp_path, train={"skip_nonfinite": 1, "accumulate": 2})
    before = tiny_runs.weights(model)
    tiny_runs.train(model, [1])
    tiny_runs.train(model, [2], broken_batch(2))
    assert tiny_runs.differences(before, tiny_runs.weights(model)) == []
    tiny_runs.train(model, [3, 4])
    assert tiny_runs.differences(before, tiny_runs.weights(model)) != []


def test_a_run_that_skips_most_of_its_steps_is_an_error():
    guard = FiniteGuard(100)
    guard.close_window(True, 1)
    for window in range(2, 10):
        guard.close_window(False, window)
    with pytest.raises(TrainingError, match="9 of 10 steps were skipped"):
        guard.close_window(False, 10)


def test_half_of_the_steps_may_be_skipped():
    guard = FiniteGuard(100)
    for window in range(1, 41):
        guard.close_window(window % 2 == 1, window)
    assert guard.lost == 20


def test_fifty_skips_in_a_row_are_an_error_however_long_the_run():
    guard = FiniteGuard(1000)
    for window in range(1001, 1050):
        guard.close_window(False, window)
    with pytest.raises(TrainingError, match="The last 50 steps were skipped"):
        guard.close_window(False, 1050)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_short_run_that_skipped_most_of_its_steps_ends_as_an_error(tmp_path, accumulate):
    """One broken iteration takes its whole window with it: three of twelve are enough to lose three of four steps."""
    options = {"skip_nonfinite": 5, "total_iter": 4 * accumulate, "accumulate": accumulate}
    model = tiny_runs.make_model(tmp_path, train=options)
    broken = tiny_runs.make_batch()
    broken["lq"][:] = float("nan")
    for step in range(4):
        first = step * accumulate + 1
        tiny_runs.train(model, [first], broken if step else None)
        tiny_runs.train(model, range(first + 1, first + accumulate))
    state = model.training_state(0, 4 * accumulate)["basicsr_plugins"]
    assert (state["skipped"], state["lost_steps"]) == (3, [3, 3])
    with pytest.raises(TrainingError, match="3 of 4 steps were skipped"):
        model.save(-1, -1)
