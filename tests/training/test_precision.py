"""fp32, bf16 and fp16, TF32, and an overflow that stops no network alone."""

from __future__ import annotations

import pytest
import tiny_runs
import torch
from torch import nn

from basicsr_plugins.core.errors import TrainingError
from basicsr_plugins.training.precision import Precision, allow_tf32

CPU = torch.device("cpu")


def test_fp32_computes_in_float32_and_has_no_state():
    precision = Precision("fp32", CPU)
    with precision.autocast():
        assert nn.Linear(4, 4)(torch.rand(2, 4)).dtype is torch.float32
    assert precision.state_dict() == {}


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precisions_cover_the_forward_pass_and_leave_weights_alone(name, dtype):
    precision, layer = Precision(name, CPU), nn.Linear(4, 4)
    with precision.autocast():
        output = layer(torch.rand(2, 4))
    assert output.dtype is dtype
    precision.backward(output.float().sum())
    assert layer.weight.dtype is layer.weight.grad.dtype is torch.float32


def test_bf16_is_used_by_the_model_and_losses_stay_float32(tmp_path):
    model = tiny_runs.make_model(tmp_path, train={"precision": "bf16"})
    seen = {}
    model.net_g.body[0].register_forward_hook(lambda module, inputs, output: seen.update(inner=output.dtype))
    [log] = tiny_runs.train(model, [1])
    assert seen["inner"] is torch.bfloat16
    assert model.output.dtype is torch.float32
    [exact] = tiny_runs.train(tiny_runs.make_model(tmp_path), [1])
    assert log["l_pix"] == pytest.approx(exact["l_pix"], rel=0.02)
    assert log["l_pix"] != exact["l_pix"]


def test_validation_is_float32_whatever_the_precision(tmp_path):
    model = tiny_runs.make_model(tmp_path, train={"precision": "bf16"})
    model.feed_data(tiny_runs.make_batch(1))
    model.test()
    with torch.no_grad():
        assert torch.equal(model.output, model.net_g(model.lq))


def test_fp16_gradients_are_unscaled_before_the_clip_and_the_scale_is_saved(tmp_path):
    model = tiny_runs.make_model(tmp_path, train={"precision": "fp16", "grad_clip": 1e9})
    exact = tiny_runs.make_model(tmp_path, train={"grad_clip": 1e9})
    [log], [reference] = tiny_runs.train(model, [1]), tiny_runs.train(exact, [1])
    assert log["grad_norm"] == pytest.approx(reference["grad_norm"], rel=0.02)
    model.precision.scaler.update(new_scale=2.0**7)
    state = model.training_state(0, 1)["basicsr_plugins"]["scaler"]
    other = tiny_runs.make_model(tmp_path, train={"precision": "fp16"})
    other.precision.load_state_dict(state)
    assert other.precision.scaler.get_scale() == 2.0**7


def test_an_fp16_overflow_moves_no_network_and_halves_the_scale(tmp_path):
    model = tiny_runs.make_model(tmp_path, "dcpt", train={"precision": "fp16", "ema_decay": 0.5})
    scale, before = model.precision.scaler.get_scale(), tiny_runs.weights(model)
    # only net_g's gradients overflow: net_dc must not step with what is left of a common clip
    next(model.net_g.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    tiny_runs.train(model, [1])
    moved = [key for key in tiny_runs.differences(before, tiny_runs.weights(model)) if "running" not in key]
    assert [key for key in moved if "num_batches" not in key] == []
    assert model.precision.scaler.get_scale() == scale / 2


def test_endless_fp16_overflow_stops_with_advice(tmp_path):
    model = tiny_runs.make_model(tmp_path, train={"precision": "fp16"})
    next(model.net_g.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match="bf16 or fp32"):
        tiny_runs.train(model, range(1, 60), tiny_runs.make_batch())


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_switch(allowed):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        allow_tf32(allowed)
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
        allow_tf32(None)
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_channels_last_changes_the_memory_order_and_not_the_step(tmp_path):
    plain, last = tiny_runs.make_model(tmp_path), tiny_runs.make_model(tmp_path, train={"channels_last": True})
    assert next(last.net_g.parameters()).is_contiguous(memory_format=torch.channels_last)
    [a], [b] = tiny_runs.train(plain, [1]), tiny_runs.train(last, [1])
    assert last.lq.is_contiguous(memory_format=torch.channels_last)
    assert a["l_pix"] == pytest.approx(b["l_pix"], rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_training_on_a_gpu_follows_fp32(tmp_path, name):
    logs = {}
    for precision in ("fp32", name):
        model = tiny_runs.make_model(
            tmp_path, num_gpu=1, train={"precision": precision, "channels_last": True, "ema_decay": 0.9}
        )
        logs[precision] = tiny_runs.train(model, range(1, 21), tiny_runs.make_batch(4, 32))
    assert logs[name][-1]["l_pix"] == pytest.approx(logs["fp32"][-1]["l_pix"], rel=0.05)


@pytest.mark.gpu
def test_fused_adamw_on_a_gpu_equals_the_plain_one(tmp_path):
    results = []
    for fused in (False, True):
        optimizer = {"type": "AdamW", "lr": 1e-3, "fused": fused}
        model = tiny_runs.make_model(tmp_path, num_gpu=1, train={"optim_g": optimizer})
        tiny_runs.train(model, range(1, 6))
        results.append(tiny_runs.weights(model))
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-4, atol=1e-6)


def test_channels_last_with_parameters_of_five_dimensions():
    from basicsr_plugins.archs.promptir_arch import PromptIR
    from basicsr_plugins.core.memory_format import channels_last
    from basicsr_plugins.negatives import NegativeModels

    plain = PromptIR(preset="tiny").eval()
    image = torch.rand(1, 3, 16, 16)
    expected = plain(image)
    assert len(NegativeModels(plain, steps=[1], channels_last=True)) == 1
    last = channels_last(plain)
    assert last is plain
    assert last.output.weight.is_contiguous(memory_format=torch.channels_last)
    assert {parameter.dim() for parameter in last.parameters()} >= {4, 5}
    torch.testing.assert_close(last(image), expected, rtol=1e-4, atol=1e-5)


def test_fp16_with_an_optimizer_that_rests():
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("no loss scaling on this torch's CPU")
    precision = Precision("fp16", torch.device("cpu"))
    moving, resting = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizers = [torch.optim.SGD([parameter], lr=0.5) for parameter in (moving, resting)]
    precision.backward(moving.sum())
    for optimizer in optimizers:
        precision.unscale(optimizer)
    precision.step(optimizers)
    assert moving.tolist() == [0.5, 0.5]
    assert resting.tolist() == [1, 1]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_iteration_leaves_the_fp16_scale_alone(tmp_path, accumulate):
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("no loss scaling on this torch's CPU")
    options = {"precision": "fp16", "skip_nonfinite": 2, "accumulate": accumulate}
    model = tiny_runs.make_model(tmp_path, "dcpt", train=options)
    tiny_runs.train(model, range(1, 3))
    model.precision.scaler.update(2.0**7)  # a tiny network's gradients overflow at the usual one
    scale, before = model.precision.scaler.get_scale(), tiny_runs.weights(model)
    broken = tiny_runs.make_batch()
    broken["lq"][0, 0, 0, 0] = float("nan")
    tiny_runs.train(model, range(3, 3 + accumulate), broken)
    assert model.precision.scaler.get_scale() == scale
    assert [key for key in tiny_runs.differences(before, tiny_runs.weights(model)) if "num_batches" not in key] == []
    tiny_runs.train(model, range(5, 7))  # the scaler is ready for the next step
    assert "/g.body.0.weight" in tiny_runs.differences(before, tiny_runs.weights(model))
