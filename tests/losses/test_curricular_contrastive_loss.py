"""CCR: C2PNet's ratio, its curriculum and the state of it."""

from __future__ import annotations

import copy

import pytest
import torch
from spn_reference import TinyFeatures, images, mean_absolute

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.losses.curricular_contrastive_loss import (
    ITS_THRESHOLDS,
    CurricularContrastiveLoss,
    curriculum_weights,
)

TINY = {"first": 0.25, "second": 1.0}


def tiny_loss(**options):
    return CurricularContrastiveLoss(features=TinyFeatures(), layers=TINY, **options)


@pytest.mark.parametrize("best", [0.0, 31.5])
def test_equals_the_formula_written_out(best):
    output, target, lq, *negatives = images(9)
    loss = tiny_loss()
    if best:
        loss.update_curriculum(best, 0.9)
    raw = [1.25 if best > threshold else 0.75 for threshold in (17, 19, 31, 32, 36, 40)]
    shares = [value / (sum(raw) + 6) for value in raw]
    share_of_input = 6 / (sum(raw) + 6)
    features, total = TinyFeatures(), 0.0
    with torch.no_grad():
        a, p, x = features(output), features(target), features(lq)
        for layer, weight in TINY.items():
            away = share_of_input * mean_absolute(a[layer], x[layer])
            for share, negative in zip(shares, negatives):
                away += share * mean_absolute(a[layer], features(negative)[layer])
            total += weight * mean_absolute(a[layer], p[layer]) / (away + 1e-7)
    assert loss(output, target, lq, negatives).item() == pytest.approx(0.2 * total, rel=1e-5)


def test_curriculum_weights_at_the_start_and_on_the_way():
    weights, of_input = curriculum_weights(0.0, ITS_THRESHOLDS)
    assert weights == [0.75 / 10.5] * 6
    assert of_input == pytest.approx(0.571, abs=1e-3)
    weights, of_input = curriculum_weights(33.0, ITS_THRESHOLDS)
    assert weights[3] / weights[4] == pytest.approx(1.25 / 0.75)  # surpassed: more; still better: less
    assert sum(weights) + of_input == pytest.approx(1.0)
    weights, _ = curriculum_weights(17.0, [17.0, 19.0])
    assert weights[0] == weights[1]  # reached is not surpassed
    loss = tiny_loss(thresholds=[20.0, 30.0], curriculum_step=0.5, input_weight=3.0)
    loss.update_curriculum(25.0, 0.9)
    assert loss.negative_weights == pytest.approx([1.5 / 5, 0.5 / 5])
    assert loss.lq_weight == pytest.approx(3 / 5)


def test_moves_on_only_when_both_metrics_improve():
    loss = tiny_loss()
    before = list(loss.negative_weights)
    assert loss.update_curriculum(20.0, 0.8)
    assert loss.negative_weights != before
    assert not loss.update_curriculum(40.0, 0.7)
    assert not loss.update_curriculum(19.0, 0.9)
    assert float(loss.best_psnr) == 20.0


def test_state_is_saved_and_resumed():
    loss = tiny_loss()
    loss.update_curriculum(33.0, 0.9)
    resumed = tiny_loss()
    resumed.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert resumed.negative_weights == loss.negative_weights
    assert not resumed.update_curriculum(32.0, 0.95)


def test_gradcheck_in_float64():
    output, target, lq, *negatives = images(5, size=5, batch=1, dtype=torch.float64)
    loss = tiny_loss(loss_weight=1.0, thresholds=[17.0, 19.0]).double()
    check = torch.autograd.gradcheck
    assert check(lambda x: loss(x, target, lq, negatives), output.requires_grad_(), eps=1e-7, atol=1e-5)


def test_gradient_only_into_the_output():
    output, target, lq, negative = images(4)
    for image in (output, target, lq, negative):
        image.requires_grad_()
    tiny_loss(thresholds=[20.0])(output, target, lq, [negative]).backward()
    assert output.grad.abs().sum() > 0
    assert target.grad is None
    assert lq.grad is None
    assert negative.grad is None


def test_wrong_input():
    output, target, lq, negative = images(4)
    with pytest.raises(OptionError, match="6 values for 1 negatives"):
        tiny_loss()(output, target, lq, [negative])
    with pytest.raises(OptionError, match="N = 0"):
        tiny_loss(thresholds=[])
    with pytest.raises(OptionError, match=r"curriculum_step in \[0, 1\)"):
        tiny_loss(curriculum_step=1.0)
    with pytest.raises(DataError, match="images out of range"):
        tiny_loss(thresholds=[20.0])(output, target * 1.2, lq, [negative])
