"""The guards: start and warm-up, and both signs of a collapse on toys that do collapse (Tables 8 and 9)."""

from __future__ import annotations

import copy

import pytest
import torch
from spn_reference import images
from torch import nn
from torch.nn import functional as F

from basicsr_plugins.core.errors import OptionError, TrainingError
from basicsr_plugins.losses.spn_guard import SPNGuard, ramp
from basicsr_plugins.losses.spn_loss import SPNLoss
from basicsr_plugins.losses.uncertainty import negative_spread, uncertainty_term
from basicsr_plugins.negatives import NegativeModels


def test_ramp():
    assert [ramp(i, 3, 4) for i in range(9)] == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert [ramp(i, 2, 0) for i in range(4)] == [0, 0, 1, 1]


def test_nothing_before_the_largest_step_unless_told_otherwise():
    guard = SPNGuard(warmup_iter=0)
    assert [guard.scale(i, largest_step=2) for i in range(4)] == [0, 0, 1, 1]
    assert SPNGuard(start_iter=0, warmup_iter=0).scale(0, largest_step=2) == 1


class Toy(nn.Module):
    """One convolution that has to keep an image as it is."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3).view(3, 3, 1, 1) * 0.9)
            self.conv.bias.zero_()

    def forward(self, x):
        return self.conv(x)


def train(weight, decay, guard=None, iterations=300, steps=(1, 2), **options):
    """Train the toy with pixel SPN; returns the last error and the guard's sentences."""
    generator = torch.Generator().manual_seed(0)
    net = Toy()
    negatives = NegativeModels(net, list(steps), decay, **options)
    spn = SPNLoss(weight, features="pixel")
    spn.distance.trust_outputs()  # a collapsing output leaves the range
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    said = []
    for iteration in range(iterations):
        image = torch.rand(2, 3, 8, 8, generator=generator)
        out = net(image)
        scale = guard.scale(iteration, max(steps)) if guard else 1.0
        term = scale * spn(out, negatives(image))
        loss = F.l1_loss(out, image) + term
        if guard:
            said.append(guard.observe(out, image, -term))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        negatives.update(net)
    return F.l1_loss(net(image), image).item(), [sentence for sentence in said if sentence]


def test_table_8_large_weights_collapse_and_small_ones_do_not():
    healthy, _ = train(0.1, 0.1)
    collapsed, _ = train(10.0, 0.9)
    assert healthy < 0.05
    assert collapsed > 10 * healthy


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_table_9_without_history_the_push_has_nothing_to_hold_on_to(decay):
    """w = 0 and 0.01: the negative is the current network, and the same weight that is harmless above collapses."""
    collapsed, _ = train(4.0, decay, steps=(2,))
    guard = SPNGuard(warmup_iter=0, window=10, check_every=1)
    guarded, said = train(4.0, decay, guard, steps=(2,))
    assert said
    assert guarded < collapsed


def test_table_6_a_random_network_is_no_negative():
    """Fixed random weights do not follow: a large weight drives the output away for good, and that is found."""
    collapsed, _ = train(4.0, 0.1, mode="random")
    guard = SPNGuard(warmup_iter=0, window=10, check_every=1, on_collapse="stop")
    guarded, said = train(4.0, 0.1, guard, mode="random")
    assert said
    assert guarded < 0.2 * collapsed


@pytest.mark.parametrize(("action", "left"), [("lower", 0.1), ("stop", 0.0)])
def test_collapse_is_found_said_and_ended(action, left, caplog):
    guard = SPNGuard(warmup_iter=0, on_collapse=action, window=10, check_every=5)
    unguarded, _ = train(10.0, 0.9)
    with caplog.at_level("WARNING", logger="basicsr"):
        error, said = train(10.0, 0.9, guard)
    assert error < 0.2 * unguarded
    assert said[0].startswith("SPN collapses after")
    assert said[0] in caplog.text
    assert guard.factor == pytest.approx(left) or (action == "lower" and guard.factor < left)
    if action == "stop":
        assert len(said) == 1
        assert "switched off" in said[0]


def test_healthy_training_is_left_alone():
    guard = SPNGuard(warmup_iter=20, window=10, check_every=1)
    _, said = train(0.1, 0.1, guard)
    assert said == []
    assert guard.factor == 1.0


def test_raise_and_ignore():
    with pytest.raises(TrainingError, match=r"SPN collapses after .* Lower loss_weight"):
        train(10.0, 0.9, SPNGuard(warmup_iter=0, on_collapse="raise", window=10, check_every=1))
    _, said = train(10.0, 0.9, SPNGuard(warmup_iter=0, on_collapse="ignore"))
    assert said == []


def observe(guard, error, pushed=None):
    target = torch.zeros(1, 1, 2, 2)
    return guard.observe(target + error, target, None if pushed is None else torch.tensor(pushed))


def test_each_sign_by_itself():
    ratio = SPNGuard(window=2, check_every=1, max_ratio=1.0, max_rise=100.0)
    assert [observe(ratio, 0.1, 0.09) for _ in range(5)] == [None] * 5
    found = [observe(ratio, 0.1, 0.5) for _ in range(3)]
    assert any(sentence and "max_ratio" in sentence for sentence in found)
    rise = SPNGuard(window=2, check_every=1, max_ratio=100.0, max_rise=2.0)
    assert [observe(rise, 0.1, 0.01) for _ in range(5)] == [None] * 5
    found = [observe(rise, 0.5, 0.01) for _ in range(3)]
    assert any(sentence and "max_rise" in sentence for sentence in found)
    tiny = SPNGuard(window=2, check_every=1)
    assert [observe(tiny, error, 1e-6) for error in (1e-4, 1e-4, 1e-4, 3e-3, 3e-3, 3e-3)] == [None] * 6
    # without the loss a rising error is none of its business
    alone = SPNGuard(window=2, check_every=1)
    assert [observe(alone, error) for error in (0.1, 0.1, 0.1, 1.0, 1.0, 1.0)] == [None] * 6
    # a first batch that is low by luck is no yardstick
    lucky = SPNGuard(window=5, check_every=1)
    assert [observe(lucky, error, 0.01) for error in [0.01] + [0.1] * 12] == [None] * 13
    broken = SPNGuard(window=1, check_every=1)
    assert "not finite" in observe(broken, float("nan"), 0.1)


def places(sentences):
    """When something was said, counted from 1."""
    return [place for place, sentence in enumerate(sentences, start=1) if sentence]


def test_checks_wait_for_a_full_window_at_the_start_and_after_each_action():
    guard = SPNGuard(window=4, check_every=1)
    assert places(observe(guard, 0.1, 0.5) for _ in range(13)) == [4, 8, 12]
    assert guard.factor == pytest.approx(1e-3)  # tenfold each time
    assert places(observe(SPNGuard(window=1, check_every=3), 0.1, 0.5) for _ in range(2)) == []
    seldom = SPNGuard(window=1, check_every=3)
    assert places(observe(seldom, 0.1, 0.5) for _ in range(7)) == [3, 6]
    stopped = SPNGuard(window=2, check_every=1, on_collapse="stop")
    assert places(observe(stopped, 0.1, 0.5) for _ in range(9)) == [2]


def test_a_new_level_of_the_error_is_said_once():
    guard = SPNGuard(window=2, check_every=1, max_ratio=100.0)
    assert len(places(observe(guard, error, 0.01) for error in [0.1] * 5 + [0.5] * 20)) == 1


def test_the_mean_follows_and_keeps_no_graph():
    guard = SPNGuard(window=2)
    for error in [0.1] * 20 + [0.5]:
        observe(guard, error, 0.0)
    assert guard.state_dict()["means"][0] == pytest.approx(0.3)
    output = torch.zeros(1, 1, 2, 2, requires_grad=True)
    guard.observe(output, torch.ones(1, 1, 2, 2), output.sum())
    assert not guard._means.requires_grad


def test_means_are_those_of_all_ranks(monkeypatch):
    from torch import distributed

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda values: values.add_(torch.tensor([0.1, 0.0, 0.1])))
    guard = SPNGuard(window=1, check_every=1)
    # this rank alone would be above max_ratio: 0.15 of 0.1; both are not: 0.075 of 0.1
    assert observe(guard, 0.1, 0.15) is None
    assert guard.state_dict()["means"][0] == pytest.approx(0.1)
    assert "2 times the mean absolute error 0.1" in observe(guard, 0.1, 0.4)


def test_state_resumes():
    guard = SPNGuard(window=3, check_every=2)
    for _ in range(4):
        observe(guard, 0.1, 0.05)
    resumed = SPNGuard(window=3, check_every=2)
    resumed.load_state_dict(copy.deepcopy(guard.state_dict()))
    for _ in range(6):
        assert observe(guard, 0.3, 0.05) == observe(resumed, 0.3, 0.05)
    assert guard.state_dict() == resumed.state_dict()
    assert guard.factor < 1
    later = SPNGuard()
    later.load_state_dict(guard.state_dict())
    assert later.factor == guard.factor


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"on_collapse": "stopp"}, "Did you mean 'stop'"),
        ({"warmup_iter": -1}, "warmup_iter: must be 0 or more"),
        ({"start_iter": -1}, "start_iter: must be 0 or more"),
        ({"check_every": 0}, "check_every: must be 1 or more"),
        ({"max_rise": 1.0}, "max_rise above 1"),
        ({"max_ratio": 0.0}, "max_ratio must be above 0"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(OptionError, match=text):
        SPNGuard(**options)


def test_uncertainty_is_the_weighted_error_written_out():
    output, target, *negatives = images(5, size=4)
    stack = torch.stack(negatives)
    spread = [[x.item() for x in stack[:, n, c, i, j]] for n in range(2) for c in range(3) for i in range(4)
              for j in range(4)]  # fmt: skip
    deviations = []
    for values in spread:
        mean = sum(values) / len(values)
        deviations.append((sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5)
    mean = sum(deviations) / len(deviations)
    errors = (output - target).abs().flatten().tolist()
    expected = sum(error * (1 + u / mean) for error, u in zip(errors, deviations)) / len(errors)
    found = F.l1_loss(output, target) + uncertainty_term(output, target, stack)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(uncertainty_term(output, target, stack[:1].expand(2, -1, -1, -1, -1)))
    with pytest.raises(OptionError, match="at least 2 negatives"):
        negative_spread(stack[:1])
    assert negative_spread(stack).flatten().tolist() == pytest.approx(deviations, rel=1e-4)
    for image in (output, target, stack):
        image.requires_grad_()
    uncertainty_term(output, target, stack).backward()
    assert stack.grad is None
    assert target.grad is None
    assert output.grad is not None
