"""Optimizers and schedulers by name, the warm-up's whole curve, clipping."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.training.optimisation import (
    WarmUp,
    build_optimizer,
    build_scheduler,
    check_optimizer,
    check_scheduler,
    clip_gradients,
    gradient_norm,
)

REFUSED = {"LBFGS", "SparseAdam"}
SCHEDULERS = {
    "MultiStepLR": {"milestones": [3, 6], "gamma": 0.5},
    "MultiStepRestartLR": {"milestones": [3, 6], "gamma": 0.5, "restarts": [0], "restart_weights": [1]},
    "CosineAnnealingRestartLR": {"periods": [10, 10], "restart_weights": [1, 0.5], "eta_min": 1e-7},
    "CosineAnnealingLR": {"T_max": 20, "eta_min": 1e-6},
    "CosineAnnealingWarmRestarts": {"T_0": 4},
    "StepLR": {"step_size": 3},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": 20, "power": 2.0},
    "LinearLR": {"total_iters": 5},
    "ConstantLR": {"total_iters": 5},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 50},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
    "SequentialLR": {
        "schedulers": [{"type": "ConstantLR", "factor": 1.0}, {"type": "CosineAnnealingLR", "T_max": 10}],
        "milestones": [5],
    },
    "ChainedScheduler": {"schedulers": [{"type": "ExponentialLR", "gamma": 0.9}, {"type": "ConstantLR"}]},
}


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(3, 3))


def optimizer_names() -> list[str]:
    kinds = vars(torch.optim).items()
    return sorted(
        name
        for name, kind in kinds
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    )


@pytest.mark.parametrize("name", [name for name in optimizer_names() if name not in REFUSED])
def test_every_optimizer_of_torch_by_name(name):
    weight = parameter()
    options = {"type": name, "lr": 0.01}
    optimizer = build_optimizer(options, [weight], "train.optim_g")
    assert type(optimizer) is getattr(torch.optim, name)
    assert options == {"type": name, "lr": 0.01}  # stock pops `type`, so that a second reading fails
    (weight**2).sum().backward()
    optimizer.step()
    assert not torch.equal(weight.detach(), torch.ones(3, 3))


def test_arguments_reach_the_optimizer():
    optimizer = build_optimizer(
        {"type": "AdamW", "lr": 0.1, "betas": [0.8, 0.9], "fused": True}, [parameter()], "train.optim_g"
    )
    group = optimizer.param_groups[0]
    assert list(group["betas"]) == [0.8, 0.9]
    assert group["fused"] is True


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"lr": 0.1}, r"train\.optim_g\.type: this option is required"),
        ({"type": "adamw"}, "Did you mean 'AdamW'"),
        ({"type": "Adam", "learning_rate": 0.1}, r"train\.optim_g\.learning_rate: unknown option"),
        ({"type": "Adam", "lr": "1e-4"}, r"YAML reads 1e-4 as text"),
        ({"type": "Adam", "lr": -1.0}, r"train\.optim_g: Invalid learning rate"),
        ({"type": "Adam", "betas": [0.9]}, r"train\.optim_g"),
        ({"type": "LBFGS"}, "evaluates the loss several times"),
        ({"type": "SparseAdam"}, "sparse gradients only"),
    ],
)
def test_a_wrong_optimizer_is_one_message(given, text):
    with pytest.raises(OptionError, match=text):
        check_optimizer(given, "train.optim_g")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_runs_and_resumes_from_a_safe_file(name):
    def fresh():
        optimizer = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
        return optimizer, build_scheduler({"type": name, **SCHEDULERS[name]}, optimizer, "train.scheduler")

    def step(optimizer, scheduler, count):
        rates = []
        for _ in range(count):
            optimizer.step()
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    optimizer, scheduler = fresh()
    step(optimizer, scheduler, 4)
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), _plain(scheduler.state_dict())], file)
    expected = step(optimizer, scheduler, 8)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    optimizer, scheduler = fresh()
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert step(optimizer, scheduler, 8) == expected
    assert len(set(expected)) > 1 or name in ("LinearLR", "ConstantLR", "MultiStepLR", "MultiStepRestartLR")


def _plain(value):
    from basicsr_plugins.training.checkpointing import _plain as plain

    return plain(value)


def test_no_scheduler_keeps_the_rate():
    optimizer = torch.optim.SGD([parameter()], lr=0.1)
    scheduler = build_scheduler(None, optimizer, "train.scheduler")
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"type": "CosineAnealingLR", "T_max": 3}, "Did you mean 'CosineAnnealingLR'"),
        ({"type": "CosineAnnealingLR"}, r"train\.scheduler\.T_max: this option is required"),
        ({"type": "OneCycleLR", "max_lr": 0.1}, r"train\.scheduler: .*total_steps"),
        ({"type": "ReduceLROnPlateau"}, "follows a metric"),
        ({"type": "LambdaLR"}, "python functions"),
        ({"type": "SequentialLR", "schedulers": 3, "milestones": [2]}, "expected a list of schedulers"),
        (
            {"type": "SequentialLR", "schedulers": [{"type": "StepLR", "stepsize": 1}], "milestones": []},
            r"train\.scheduler\.schedulers\.0\.stepsize.*Did you mean 'step_size'",
        ),
        ({"type": "MultiStepLR", "milestones": [3], "restarts": [0, 1]}, "restarts and their weights"),
    ],
)
def test_a_wrong_scheduler_is_one_message(given, text):
    with pytest.raises(OptionError, match=text):
        check_scheduler(given, "train.scheduler")


def closed_form(name: str, iteration: int) -> float:
    """The rate of iteration ``iteration`` (from 1) by the definition of the schedule, without any scheduler."""
    done = iteration - 1
    if name == "MultiStepLR":
        return 0.1 * 0.5 ** sum(done >= milestone for milestone in (5, 12))
    if name == "CosineAnnealingLR":
        return 0.1 * (1 + math.cos(math.pi * done / 40)) / 2
    return 0.1


@pytest.mark.parametrize(
    "given",
    [{"type": "MultiStepLR", "milestones": [5, 12], "gamma": 0.5}, {"type": "CosineAnnealingLR", "T_max": 40}, None],
)
@pytest.mark.parametrize("warmup", [-1, 1, 8, 10])
def test_the_whole_warm_up_curve(given, warmup):
    optimizer = torch.optim.SGD([parameter()], lr=0.1)
    warm_up = WarmUp([optimizer], [build_scheduler(given, optimizer, "train.scheduler")])
    for iteration in range(1, 31):
        warm_up.step(iteration, warmup)
        factor = min(1.0, iteration / warmup) if warmup > 0 else 1.0
        expected = factor * closed_form(given["type"] if given else "", iteration)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9), iteration
        optimizer.step()


def test_clipping_by_norm_equals_torch_and_reports_the_norm_before():
    torch.manual_seed(3)
    ours = [nn.Parameter(torch.rand(4, 3)), nn.Parameter(torch.rand(5)), nn.Parameter(torch.rand(2))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    for a, b in zip(ours[:2], theirs[:2]):  # the third has no gradient
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    norm = clip_gradients(ours, 0.5)
    assert norm.item() == pytest.approx(nn.utils.clip_grad_norm_(theirs, 0.5).item(), rel=1e-6)
    slow = math.sqrt(sum(float(x) ** 2 for p in ours[:2] for x in p.grad.flatten()))
    assert slow == pytest.approx(0.5, rel=1e-4)
    for a, b in zip(ours[:2], theirs[:2]):
        torch.testing.assert_close(a.grad, b.grad)
    assert ours[2].grad is None


def test_clipping_by_value_and_none():
    weight = parameter()
    weight.grad = torch.tensor([[3.0, -4.0, 0.1]] * 3)
    before = weight.grad.clone()
    assert clip_gradients([weight], None).item() == pytest.approx(gradient_norm([weight]).item())
    assert torch.equal(weight.grad, before)
    clip_gradients([weight], {"value": 0.5})
    assert torch.equal(weight.grad, before.clamp(-0.5, 0.5))
    assert gradient_norm([parameter()]).item() == 0.0
