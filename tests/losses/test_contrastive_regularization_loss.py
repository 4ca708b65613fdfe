"""CR: the ratio of AECR-Net, on the one distance that all contrastive losses share."""

from __future__ import annotations

import pytest
import torch
from spn_reference import TinyFeatures, images, mean_absolute

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.losses.contrastive_regularization_loss import CR_LAYERS, ContrastiveRegularizationLoss
from basicsr_plugins.losses.feature_distance import FeatureDistance

TINY = {"first": 0.25, "second": 1.0}


def tiny_loss(**options):
    return ContrastiveRegularizationLoss(features=TinyFeatures(), layers=TINY, **options)


def written_out(output, target, lq):
    features, total = TinyFeatures(), 0.0
    with torch.no_grad():
        a, p, n = features(output), features(target), features(lq)
        for layer, weight in TINY.items():
            total += weight * mean_absolute(a[layer], p[layer]) / (mean_absolute(a[layer], n[layer]) + 1e-7)
    return total


def test_equals_the_formula_written_out():
    output, target, lq = images(3)
    assert tiny_loss()(output, target, lq).item() == pytest.approx(0.1 * written_out(output, target, lq), rel=1e-5)


def test_published_layers_and_weights():
    loss = ContrastiveRegularizationLoss(weights="random")
    assert loss.distance.layer_weights == {
        "relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0,
    } == CR_LAYERS  # fmt: skip
    assert len(loss.distance.features.net) == 30  # VGG19, cut off after relu5_1
    assert loss.distance.features.use_input_norm is False
    assert isinstance(loss.distance, FeatureDistance)


def test_gradcheck_in_float64():
    output, target, lq = images(3, size=5, batch=1, dtype=torch.float64)
    loss = tiny_loss(loss_weight=1.0).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, lq), output.requires_grad_(), eps=1e-7, atol=1e-5)


def test_perfect_output_costs_nothing_and_the_input_costs_most():
    _, target, lq = images(3)
    loss = tiny_loss()
    assert loss(target, target, lq).item() == 0
    assert loss(lq, target, lq) > 1e3 * loss((target + lq) / 2, target, lq)


def test_gradient_only_into_the_output():
    output, target, lq = images(3)
    for image in (output, target, lq):
        image.requires_grad_()
    tiny_loss()(output, target, lq).backward()
    assert output.grad.abs().sum() > 0
    assert target.grad is None
    assert lq.grad is None


def test_terms_name_both_distances():
    output, target, lq = images(3)
    terms = tiny_loss().terms(output.requires_grad_(), target, lq)
    assert set(terms) == {"l_cr", "cr_positive", "cr_negative"}
    features = TinyFeatures()
    for name, reference in (("cr_positive", target), ("cr_negative", lq)):
        with torch.no_grad():
            a, b = features(output), features(reference)
        expected = sum(weight * mean_absolute(a[layer], b[layer]) for layer, weight in TINY.items())
        assert terms[name].item() == pytest.approx(expected, rel=1e-5)
        assert not terms[name].requires_grad
    assert torch.isfinite(tiny_loss()(lq, target, lq)), "an output that is the input still has a loss"


def test_wrong_input():
    output, target, lq = images(3)
    with pytest.raises(DataError, match=r"target: expected the output's shape"):
        tiny_loss()(output, target[..., :4, :4], lq)
    with pytest.raises(DataError, match="images out of range"):
        tiny_loss()(output, target * 2 - 1, lq)
    with pytest.raises(DataError, match="images out of range"):
        tiny_loss()(output, target * 1.2, lq)  # an output may leave the range a little, data may not
    with pytest.raises(OptionError, match="loss_weight"):
        tiny_loss(loss_weight=-0.1)
