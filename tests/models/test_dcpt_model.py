"""DCPT in the engine: two phases with the gradients of one, one graph at a time, classification at validation."""

from __future__ import annotations

import gc

import pytest
import tiny_runs
import torch
from torch.utils.data import DataLoader, Dataset

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.launch.checking import check_run
from basicsr_plugins.losses.focal_loss import focal_loss


def gradients(model) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": parameter.grad.clone()
        for name, network in model.networks.items()
        for key, parameter in network.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("shown", ["gt", "lq"])
def test_the_phases_sum_to_one_joint_backward_pass(tmp_path, shown):
    zero = {"type": "SGD", "lr": 0.0}
    options = {"optim_g": zero, "optim_dc": zero, "pixel_input": shown}
    model = tiny_runs.make_model(tmp_path, "dcpt", train=options)
    batch = tiny_runs.make_batch(4)
    [log] = tiny_runs.train(model, [1], batch)
    phased = gradients(model)
    joint = tiny_runs.make_model(tmp_path, "dcpt", train=options)
    generation = (joint.net_g(batch[shown]) - batch["gt"]).abs().mean()
    features = joint.tap(batch["lq"])
    classification = focal_loss(joint.net_dc(features), batch["degradation"], 2.0)
    (generation + classification).backward()
    assert set(phased) == set(gradients(joint))
    for key, value in gradients(joint).items():
        torch.testing.assert_close(phased[key], value, rtol=1e-4, atol=1e-7, msg=lambda text, k=key: f"{k}: {text}")
    assert log == pytest.approx({"l_pix": generation.item(), "l_cls": classification.item()}, rel=1e-5)


def test_the_graphs_of_two_phases_never_live_together(tmp_path):
    model = tiny_runs.make_model(tmp_path, "dcpt")
    alive = []

    class Node(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(torch.ones(()))
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    def mark(module, inputs, output):
        result = Node.apply(output)
        held.append(result.grad_fn)
        return result

    held: list = []
    handle = model.net_g.body[0].register_forward_hook(mark)
    classify = model.net_dc.forward

    def counting(features):
        gc.collect()
        # the saved tensors of the first phase are gone once its backward pass has run
        for node in held[:-1]:
            try:
                node.saved_tensors
            except RuntimeError:
                continue
            alive.append(node)
        return classify(features)

    model.net_dc.forward = counting
    tiny_runs.train(model, [1])
    handle.remove()
    assert len(held) == 2
    assert alive == []


def test_both_networks_move_and_are_averaged(tmp_path):
    model = tiny_runs.make_model(tmp_path, "dcpt", train={"ema_decay": 0.5})
    before = tiny_runs.weights(model)
    tiny_runs.train(model, [1])
    after = tiny_runs.weights(model)
    for name in ("g", "dc"):
        moved = [key for key, value in before.items() if key.startswith(f"{name}.") and value.is_floating_point()
                 and not torch.equal(value, after[key])]  # fmt: skip
        assert moved
        for key in moved:
            expected = 0.5 * before[key] + 0.5 * after[key]
            torch.testing.assert_close(after[key.replace(f"{name}.", f"{name}_ema.", 1)], expected)


class Labelled(Dataset):
    def __init__(self, labels=(0, 1, 1, 0)):
        self.opt, self.labels = {"name": "labelled", "phase": "val"}, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        batch = tiny_runs.make_batch(1, 14, seed=index)
        return {"lq": batch["lq"][0][:, :9], "gt": batch["gt"][0][:, :9], "degradation": self.labels[index],
                "lq_path": f"{index}.png"}  # fmt: skip


def test_accuracy_of_the_averaged_networks_at_validation(tmp_path, caplog):
    model = tiny_runs.make_model(tmp_path, "dcpt", train={"ema_decay": 0.9}, val={"val_freq": 1})
    tiny_runs.train(model, [1, 2])
    expected = []
    model.net_g_ema.eval()
    model.net_dc_ema.eval()
    tap = model.make_tap(model.net_g_ema, model.run)
    for index, label in enumerate(Labelled().labels):
        with torch.no_grad():
            logits = model.net_dc_ema(tap(Labelled()[index]["lq"][None]))
        expected.append(int(logits.argmax()) == label)
    for raw in (model.net_g, model.net_dc):
        next(raw.children()).register_forward_pre_hook(lambda *_: pytest.fail("judged by what is not averaged"))
    with caplog.at_level("INFO", "basicsr"):
        model.validation(DataLoader(Labelled(), batch_size=1), 1, None, False)
    assert model.metric_results["accuracy"] == pytest.approx(sum(expected) / 4)
    assert model.metric_results[f"accuracy_{model.class_names()[0]}"] == pytest.approx((expected[0] + expected[3]) / 2)
    assert "accuracy" in caplog.text


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_without_a_class_names_the_files(tmp_path, label):
    model = tiny_runs.make_model(tmp_path, "dcpt")
    batch = tiny_runs.make_batch()
    batch["degradation"][1] = label
    with pytest.raises(DataError, match=r"network_dc\.num_classes: the classifier has 2 classes.*lq_1_1\.png"):
        tiny_runs.train(model, [1], batch)


def test_a_data_set_without_labels(tmp_path):
    model = tiny_runs.make_model(tmp_path, "dcpt")
    batch = tiny_runs.make_batch()
    del batch["degradation"]
    with pytest.raises(DataError, match="returns no degradation"):
        tiny_runs.train(model, [1], batch)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"train": {"feature_layers": ["body.9"]}}, r"train\.feature_layers: SRVGGNetCompact has unknown module"),
        ({"train": {"feature_layers": []}}, "feature_layers"),
        ({"network_dc": {"num_classes": 1}}, r"network_dc\.num_classes: .* set num_classes: 2"),
        ({"network_dc": None}, "network_dc: DCPTModel needs this network"),
        ({"train": {"optim_dc": None}}, r"train\.optim_dc"),
    ],
)
def test_wrong_options_are_refused_before_training(tmp_path, change, text):
    tiny_runs.write_images(tmp_path / "images")
    options = tiny_runs.parsed_options(tmp_path, "dcpt", **change)
    with pytest.raises(OptionError, match=text):
        check_run(options)


def test_only_a_trained_network_needs_an_optimizer(tmp_path):
    tiny_runs.write_images(tmp_path / "images")
    options = tiny_runs.parsed_options(tmp_path, "dcpt", train={"train_only": "classifier", "optim_g": None})
    check_run(options)


def test_stock_swinir_with_tokens_and_different_sides(tmp_path):
    swinir = {
        "type": "SwinIR", "upscale": 1, "in_chans": 3, "img_size": 16, "window_size": 4, "img_range": 1.0,
        "depths": [1, 1], "embed_dim": 8, "num_heads": [2, 2], "mlp_ratio": 2, "upsampler": "",
        "resi_connection": "1conv",
    }  # fmt: skip
    layers = {"feature_layers": ["layers.1", "layers.0"]}
    model = tiny_runs.make_model(tmp_path, "dcpt", network_g=swinir, train=layers)
    batch = tiny_runs.make_batch(2, 16)
    batch = {**batch, "lq": batch["lq"][:, :, :8], "gt": batch["gt"][:, :, :8]}
    features = model.tap(batch["lq"])
    assert [tuple(feature.shape) for feature in features] == [(2, 8, 8, 16)] * 2
    # the map is the picture of the tokens, not a transposed or re-folded one
    seen = []
    handle = model.net_g.layers[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.net_g(batch["lq"])
    handle.remove()
    for row in range(8):
        for column in range(16):
            torch.testing.assert_close(features[0][:, :, row, column], seen[0][:, row * 16 + column])
    before = tiny_runs.weights(model)
    tiny_runs.train(model, [1], batch)
    assert tiny_runs.differences(before, tiny_runs.weights(model)) != []


@pytest.mark.parametrize(("loss", "sizes"), [("FocalLoss", [2, 2]), ("CrossEntropyLoss", [4])])
def test_the_classifier_takes_halves_where_the_loss_is_a_mean_over_images(tmp_path, loss, sizes):
    model = tiny_runs.make_model(tmp_path, "dcpt", train={"classification_opt": {"type": loss}})
    seen = []
    model.net_dc.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    tiny_runs.train(model, [1], tiny_runs.make_batch(4))
    assert seen == sizes


class Head(torch.nn.Module):
    """A classifier of somebody else's: batch statistics, and it reads the first feature alone."""

    def __init__(self, feature_dims, num_classes=2, norm="none", **_):
        super().__init__()
        self.mix = torch.nn.Conv2d(feature_dims[0], 6, 1)
        self.norm = torch.nn.BatchNorm2d(6) if norm == "batch2d" else torch.nn.Identity()
        self.flat = torch.nn.BatchNorm1d(6) if norm == "batch1d" else torch.nn.Identity()
        self.out = torch.nn.Linear(6, num_classes)

    def forward(self, features):
        return self.out(self.flat(self.norm(self.mix(features[0])).relu().mean(dim=(-2, -1))))


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("norm", ["none", "batch1d", "batch2d"])
def test_a_classifier_with_batch_statistics_takes_the_step_of_one_pass(tmp_path, monkeypatch, norm, count):
    from basicsr.utils.registry import ARCH_REGISTRY

    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "Head", Head)
    zero = {"type": "SGD", "lr": 0.0}
    given = {"network_dc": {"type": "Head", "num_classes": 2, "norm": norm}}
    options = {"optim_g": zero, "optim_dc": zero}
    model, joint = (tiny_runs.make_model(tmp_path, "dcpt", train=options, **given) for _ in range(2))
    joint.net_dc.load_state_dict(model.net_dc.state_dict())
    seen = []
    model.net_dc.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    batch = tiny_runs.make_batch(count)
    tiny_runs.train(model, [1], batch)
    assert seen == [count]
    generation = (joint.net_g(batch["gt"]) - batch["gt"]).abs().mean()
    (generation + focal_loss(joint.net_dc(joint.tap(batch["lq"])), batch["degradation"], 2.0)).backward()
    expected = gradients(joint)
    assert set(gradients(model)) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(gradients(model)[key], value, rtol=1e-4, atol=1e-7)


def test_without_a_pixel_loss_there_is_no_generation_phase(tmp_path):
    model = tiny_runs.make_model(tmp_path, "dcpt", train={"pixel_opt": None})
    before = tiny_runs.weights(model)
    [log] = tiny_runs.train(model, [1], tiny_runs.make_batch(4))
    assert set(log) == {"l_cls"}
    moved = tiny_runs.differences(before, tiny_runs.weights(model))
    assert moved != []


@pytest.mark.parametrize(
    ("key", "value"), [("spn_opt", {"loss": {"type": "SPNLoss", "features": "pixel"}}), ("pixel_input", "lq")]
)
def test_options_that_need_restored_images(tmp_path, key, value):
    tiny_runs.write_images(tmp_path / "images")
    options = tiny_runs.parsed_options(tmp_path, "dcpt", train={"pixel_opt": None, key: value})
    with pytest.raises(OptionError, match=rf"train\.{key}: without pixel_opt no image is restored"):
        check_run(options)


def test_classification_which_needs_more_memory_comes_before_there_are_gradients(tmp_path):
    model = tiny_runs.make_model(tmp_path, "dcpt")
    model.feed_data(tiny_runs.make_batch(4))
    seen = []
    for losses in model.phases(1):
        seen.append(set(losses))
        sum(losses.values()).backward()
    assert seen == [{"l_cls"}, {"l_cls"}, {"l_pix"}]
