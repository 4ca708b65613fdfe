"""The engine as a whole: stock's step where nothing is switched on, and every switch."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import tiny_runs
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from basicsr_plugins import checkpoints
from basicsr_plugins.core.errors import CheckpointError, DataError, OptionError

PERIODS = {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5}


def stock_model(folder: Path, **changes):
    options = {"train": {"scheduler": dict(PERIODS)}, **changes}
    return tiny_runs.make_model(folder, model_type="SRModel", **options)


@pytest.mark.parametrize("ema_decay", [0, 0.9])
@pytest.mark.parametrize("optimizer", [tiny_runs.ADAM, {**tiny_runs.ADAM, "weight_decay": 0.1, "amsgrad": True}])
def test_every_option_off_is_stock_bit_for_bit(tmp_path, optimizer, ema_decay):
    common = {"optim_g": optimizer, "ema_decay": ema_decay, "scheduler": PERIODS}
    ours = tiny_runs.make_model(tmp_path, train=common)
    stock = stock_model(tmp_path, train=copy.deepcopy(common))
    for iteration in range(1, 5):
        batch = tiny_runs.make_batch(seed=iteration)
        [log] = tiny_runs.train(ours, [iteration], batch)
        stock.update_learning_rate(iteration)
        stock.feed_data(batch)
        stock.optimize_parameters(iteration)
        assert log == stock.get_current_log()
        assert ours.get_current_learning_rate() == stock.get_current_learning_rate()
        assert tiny_runs.differences(dict(stock.net_g.state_dict()), dict(ours.net_g.state_dict())) == []
    if ema_decay:
        assert tiny_runs.differences(dict(stock.net_g_ema.state_dict()), dict(ours.net_g_ema.state_dict())) == []


def test_perceptual_and_extra_losses_are_added(tmp_path):
    extra = {"l_mse": {"type": "MSELoss", "loss_weight": 2.0}}
    both = tiny_runs.make_model(tmp_path, train={"extra_losses": extra})
    [log] = tiny_runs.train(both, [1])
    output, gt = both.output.detach(), both.gt
    assert log["l_mse"] == pytest.approx(2 * float(((output - gt) ** 2).mean()), rel=1e-5)
    only = tiny_runs.make_model(tmp_path, train={"extra_losses": extra, "pixel_opt": None})
    assert set(tiny_runs.train(only, [1])[0]) == {"l_mse"}
    both.cri_perceptual = lambda output, gt: (torch.tensor(0.5), None)
    assert tiny_runs.train(both, [2])[0]["l_percep"] == 0.5
    with pytest.raises(OptionError, match="no loss is set"):
        tiny_runs.make_model(tmp_path, train={"pixel_opt": None})


# DCPT's classifier takes a batch of four in halves and a batch of two in single images: other sums, other rounding
@pytest.mark.parametrize(("recipe", "rtol", "atol"), [("plain", 1e-5, 1e-7), ("dcpt", 1e-4, 1e-6)])
def test_accumulation_equals_the_big_batch(tmp_path, recipe, rtol, atol):
    sgd = {"type": "SGD", "lr": 0.05}
    optimizers = {"optim_g": sgd, **({"optim_dc": sgd} if recipe == "dcpt" else {})}
    small = tiny_runs.make_model(tmp_path, recipe, train={"accumulate": 2, **optimizers})
    big = tiny_runs.make_model(tmp_path, recipe, train=optimizers)
    for model in (small, big):
        for network in model.networks.values():
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
    batch = tiny_runs.make_batch(4)
    halves = [{key: value[part] for key, value in batch.items()} for part in (slice(0, 2), slice(2, 4))]
    before = tiny_runs.weights(small)
    tiny_runs.train(small, [1], halves[0])
    assert tiny_runs.differences(before, tiny_runs.weights(small)) == []
    tiny_runs.train(small, [2], halves[1])
    tiny_runs.train(big, [1], batch)
    for key, value in tiny_runs.weights(big).items():
        torch.testing.assert_close(tiny_runs.weights(small)[key], value, rtol=rtol, atol=atol)
    assert tiny_runs.differences(before, tiny_runs.weights(small)) != []


def test_clipping_is_logged_and_limits_the_step(tmp_path):
    options = {"optim_g": {"type": "SGD", "lr": 1.0}, "grad_clip": 1e-3}
    model = tiny_runs.make_model(tmp_path, train=options)
    before = torch.cat([value.flatten() for value in tiny_runs.weights(model).values()])
    [log] = tiny_runs.train(model, [1])
    after = torch.cat([value.flatten() for value in tiny_runs.weights(model).values()])
    assert log["grad_norm"] > 1e-3
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=0.01)


def test_the_progressive_schedule_is_applied(tmp_path):
    stages = {"iters": [1, 1], "gt_sizes": [6, 12], "batch_sizes": [4, 2]}
    model = tiny_runs.make_model(tmp_path, train={"progressive": stages})
    tiny_runs.train(model, [1], tiny_runs.make_batch(4))
    assert tuple(model.lq.shape) == (4, 3, 6, 6)
    tiny_runs.train(model, [2], tiny_runs.make_batch(4))
    assert tuple(model.lq.shape) == tuple(model.gt.shape) == (2, 3, 12, 12)


def test_compile_changes_no_key_and_no_result(tmp_path, monkeypatch):
    plain = tiny_runs.make_model(tmp_path)
    compiled = tiny_runs.make_model(tmp_path, train={"compile": {"backend": "eager"}, "ema_decay": 0.9})
    assert compiled.net_g._compiled_call_impl is not None
    assert list(compiled.net_g.state_dict()) == list(plain.net_g.state_dict())
    assert tiny_runs.train(compiled, [1, 2]) == tiny_runs.train(plain, [1, 2])


@pytest.mark.gpu
@pytest.mark.parametrize("arguments", [True, {"mode": "reduce-overhead"}], ids=["default", "cuda_graphs"])
@pytest.mark.parametrize("recipe", ["plain", "dcpt"])
def test_compile_on_a_gpu(tmp_path, recipe, arguments):
    torch._dynamo.reset()  # what other tests compiled counts against the limit of recompilations
    options = {"num_gpu": 1}
    plain = tiny_runs.make_model(tmp_path, recipe, **options)
    compiled = tiny_runs.make_model(tmp_path, recipe, **options, train={"compile": arguments})
    expected = tiny_runs.train(plain, range(1, 9))
    for ours, theirs in zip(tiny_runs.train(compiled, range(1, 9)), expected):
        assert ours == pytest.approx(theirs, rel=1e-2)
    assert list(compiled.net_g.state_dict()) == list(plain.net_g.state_dict())


def test_a_batch_without_a_clean_image(tmp_path):
    model = tiny_runs.make_model(tmp_path)
    batch = tiny_runs.make_batch()
    del batch["gt"]
    with pytest.raises(DataError, match=r"datasets\.train: RestorationModel needs lq, gt .* returns no gt"):
        tiny_runs.train(model, [1], batch)


def test_several_gpus_without_a_launcher(tmp_path):
    with pytest.raises(OptionError, match="torchrun"):
        tiny_runs.make_model(tmp_path, num_gpu=2)


# -- validation ---------------------------------------------------------------------------------------------------


class Images(Dataset):
    """Images of different sizes, with and without a clean one."""

    def __init__(self, with_gt: bool = True) -> None:
        self.opt, self.with_gt = {"name": "set5", "phase": "val"}, with_gt

    def __len__(self):
        return 3

    def __getitem__(self, index):
        batch = tiny_runs.make_batch(1, 12 + index, seed=index)
        item = {"lq": batch["lq"][0][:, :, :10], "lq_path": f"{index}.png"}
        return {**item, "gt": batch["gt"][0][:, :, :10]} if self.with_gt else item


METRICS = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}


def validate(model, with_gt=True, iteration=1, save_img=False):
    model.validation(DataLoader(Images(with_gt), batch_size=1), iteration, None, save_img)
    return model.metric_results


def test_the_weights_of_the_last_iteration_are_validated_once(tmp_path, caplog):
    """Stock's loop validates at total_iter, and again, one further, when it ends."""
    caplog.set_level("INFO", logger="basicsr")
    model = tiny_runs.make_model(tmp_path, train={"total_iter": 2}, val={"metrics": METRICS, "val_freq": 2})
    restored = []
    model.net_g.register_forward_hook(lambda module, inputs, output: restored.append(module.training))
    tiny_runs.train(model, [1, 2], tiny_runs.make_batch())
    first = dict(validate(model, iteration=2))
    assert restored.count(False) == 3
    assert validate(model, iteration=3) == first
    assert restored.count(False) == 3
    assert "Validation set5: done at iteration 2 with these weights." in caplog.text
    with torch.no_grad():
        next(iter(model.net_g.parameters())).add_(0.1)
    assert validate(model, iteration=3) != first  # other weights, whatever the iteration
    assert restored.count(False) == 6


@pytest.mark.parametrize("recipe", list(tiny_runs.RECIPES))
@pytest.mark.parametrize("ema_decay", [0, 0.9])
def test_no_recipe_validates_the_last_iteration_twice(tmp_path, caplog, recipe, ema_decay):
    caplog.set_level("INFO", logger="basicsr")
    train = {"total_iter": 1, "ema_decay": ema_decay}
    model = tiny_runs.make_model(tmp_path, recipe, train=train, val={"metrics": METRICS, "val_freq": 1})
    model.opt["datasets"].update({f"val_{name}": {"name": name} for name in ("first", "second")})
    tiny_runs.train(model, [1], tiny_runs.make_batch())
    for iteration in (1, 2):
        for name in ("first", "second"):
            images = Images()
            images.opt = {"name": name, "phase": "val"}
            model.validation(DataLoader(images, batch_size=1), iteration, None, False)
    assert caplog.text.count("done at iteration 1 with these weights") == 2


@pytest.mark.parametrize("validated", [None, 1])
def test_the_closing_validation_runs_where_the_last_one_was_earlier(tmp_path, validated):
    model = tiny_runs.make_model(tmp_path, train={"total_iter": 2}, val={"metrics": METRICS, "val_freq": 1})
    for iteration in (1, 2):
        tiny_runs.train(model, [iteration], tiny_runs.make_batch())
        if iteration == validated:
            validate(model, iteration=iteration)
    seen = []
    model.net_g.register_forward_hook(lambda module, inputs, output: seen.append(output))
    validate(model, iteration=3)
    assert len(seen) == 3
    assert model.best_metric_results["set5"]["psnr"]["iter"] in (1, 2)


def test_metrics_equal_stock(tmp_path):
    changes = {"val": {"metrics": METRICS, "val_freq": 1, "save_img": True}}
    ours, stock = tiny_runs.make_model(tmp_path, **changes), stock_model(tmp_path / "stock", **changes)
    stock.validation(DataLoader(Images(), batch_size=1), 1, None, True)
    assert validate(ours, save_img=True) == pytest.approx(stock.metric_results, rel=1e-12)
    files = [sorted(path.relative_to(root) for path in root.glob("experiments/**/*.png")) for root in
             (tmp_path, tmp_path / "stock")]  # fmt: skip
    assert files[0] == files[1]
    assert len(files[0]) == 3
    assert ours.net_g.training


def test_no_clean_images_and_no_metrics(tmp_path):
    assert validate(tiny_runs.make_model(tmp_path, val={"metrics": METRICS, "val_freq": 1}), with_gt=False) == {}
    assert validate(tiny_runs.make_model(tmp_path)) == {}


def test_self_ensemble_and_tiles_run_without_ema(tmp_path):
    val = {"val_freq": 1, "self_ensemble": True, "tile": 8, "tile_overlap": 2, "pad_multiple": 4}
    model = tiny_runs.make_model(tmp_path, val=val)
    model.feed_data(tiny_runs.make_batch(1, 21))
    model.test()
    assert model.output.shape == model.lq.shape
    plain = tiny_runs.make_model(tmp_path)
    plain.feed_data(tiny_runs.make_batch(1, 21))
    plain.test()
    assert not torch.equal(model.output, plain.output)


def test_the_averaged_weights_are_validated(tmp_path):
    model = tiny_runs.make_model(tmp_path, train={"ema_decay": 0.99})
    tiny_runs.train(model, [1, 2])
    model.feed_data(tiny_runs.make_batch(1))
    model.test()
    with torch.no_grad():
        assert torch.equal(model.output, model.net_g_ema(model.lq))
        assert not torch.equal(model.output, model.net_g(model.lq))


def test_the_last_validation_is_not_one_iteration_late(tmp_path):
    model = tiny_runs.make_model(tmp_path, val={"metrics": METRICS, "val_freq": 1})
    validate(model, iteration=5)  # stock's loop has counted to total_iter + 1
    assert model.best_metric_results["set5"]["psnr"]["iter"] == 4


# -- checkpoints --------------------------------------------------------------------------------------------------


def test_files_load_in_stock(tmp_path):
    model = tiny_runs.make_model(tmp_path, train={"ema_decay": 0.9, "safetensors": True})
    tiny_runs.train(model, [1, 2])
    model.save(0, 2)
    path = tmp_path / "experiments/tiny/models/net_g_2.pth"
    stock = stock_model(tmp_path, seed=9, path={"pretrain_network_g": str(path), "param_key_g": "params"})
    assert tiny_runs.differences(dict(model.net_g.state_dict()), dict(stock.net_g.state_dict())) == []
    averaged = checkpoints.read_checkpoint(path.with_suffix(".safetensors"))
    assert all(torch.equal(averaged[key], value) for key, value in model.net_g_ema.state_dict().items())
    for suffix in (".pth", ".safetensors"):
        again = tiny_runs.make_model(tmp_path, seed=9, path={"pretrain_network_g": str(path.with_suffix(suffix))})
        expected = model.net_g if suffix == ".pth" else model.net_g_ema
        assert tiny_runs.differences(dict(expected.state_dict()), dict(again.net_g.state_dict())) == []


def test_keep_last_and_best(tmp_path):
    settings = {"keep_last": 2, "save_best": True, "safetensors": True}
    model = tiny_runs.make_model(tmp_path, train=settings, val={"metrics": METRICS, "val_freq": 1})
    model.metric_results = {}
    best = tmp_path / "experiments/tiny/models/net_g_best_set5_psnr.pth"
    for iteration, psnr in ((1, 20.0), (2, 25.0), (3, 22.0), (4, float("nan"))):
        with torch.no_grad():
            next(model.net_g.parameters()).fill_(float(iteration))
        model.metric_results = {"psnr": psnr}
        model.save_best("set5", model._remember_best("set5", iteration))
        model.save(0, iteration)
    names = sorted(path.name for path in best.parent.iterdir())
    assert [name for name in names if "best" not in name] == [
        "net_g_3.pth", "net_g_3.safetensors", "net_g_4.pth", "net_g_4.safetensors",
    ]  # fmt: skip
    assert sorted(path.name for path in best.parents[1].glob("training_states/*")) == ["3.state", "4.state"]
    kept = checkpoints.read_checkpoint(best)["params"]
    assert float(next(iter(kept.values())).flatten()[0]) == 2.0
    assert model.best_metric_results["set5"]["psnr"] == {"better": "higher", "val": 25.0, "iter": 2}


@pytest.mark.parametrize("metric", [{"type": "calculate_niqe", "better": "lower", "crop_border": 0}])
def test_lower_is_better_where_it_is_said(tmp_path, metric):
    model = tiny_runs.make_model(tmp_path, val={"metrics": {"niqe": metric}, "val_freq": 1})
    for iteration, value in ((1, 5.0), (2, 4.0), (3, 6.0)):
        model.metric_results = {"niqe": value}
        model._remember_best("set5", iteration)
    assert model.best_metric_results["set5"]["niqe"]["val"] == 4.0


def test_the_state_of_another_recipe(tmp_path):
    dcpt, plain = tiny_runs.make_model(tmp_path, "dcpt"), tiny_runs.make_model(tmp_path)
    with pytest.raises(CheckpointError, match="holds 2 optimizers, RestorationModel has 1"):
        plain.resume_training(dcpt.training_state(0, 0))


def test_a_state_of_stock_is_taken_with_a_warning(tmp_path, caplog):
    stock, ours = stock_model(tmp_path), tiny_runs.make_model(tmp_path, train={"scheduler": dict(PERIODS)})
    state = {
        "epoch": 0, "iter": 1, "optimizers": [o.state_dict() for o in stock.optimizers],
        "schedulers": [s.state_dict() for s in stock.schedulers],
    }  # fmt: skip
    with caplog.at_level(logging.WARNING, "basicsr"):
        ours.resume_training(state)
    assert "random generators start anew" in caplog.text


def test_an_early_end_is_said(tmp_path, caplog):
    model = tiny_runs.make_model(tmp_path)
    tiny_runs.train(model, [1, 2])
    with caplog.at_level(logging.WARNING, "basicsr"):
        model.save(-1, -1)
    assert "Training ended at iteration 2 of 4" in caplog.text


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_of_equal_values_the_newest_is_the_best_as_in_stock(tmp_path, better):
    model = tiny_runs.make_model(tmp_path, val={"metrics": {"m": {"type": "calculate_psnr", "better": better}}})
    for iteration, value, improved in (
        (1, 20.0, ["m"]),
        (2, 20.0, ["m"]),
        (3, 21.0 if better == "lower" else 19.0, []),
    ):
        model.metric_results = {"m": value}
        assert model._remember_best("set", iteration) == improved
    assert model.best_metric_results["set"]["m"] == {"better": better, "val": 20.0, "iter": 2}


def test_best_networks_are_files_of_the_metrics_that_were_asked_for(tmp_path):
    """A class called haze/low_light made a folder, and the accuracy of each class its own copy of each network."""
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}
    model = tiny_runs.make_model(tmp_path, "dcpt", train={"save_best": True}, val={"metrics": metrics, "val_freq": 1})
    model.save_best("set/5", ["psnr", "accuracy", "accuracy_haze/low_light"])
    written = sorted(path.name for path in (tmp_path / "experiments" / "tiny" / "models").iterdir())
    assert written == [f"net_{net}_best_set_5_{metric}.pth" for net in ("dc", "g") for metric in ("accuracy", "psnr")]
