"""Focal loss and DCPT's pair of terms: the formulas, their weights, and what half precision must not change."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.losses.dcpt_loss import DCPTLoss
from basicsr_plugins.losses.focal_loss import FocalLoss, focal_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 1.0, 0.0], [0.0, 4.0, 1.0]])
LABELS = torch.tensor([0, 2, 1, 0])


def written_out(gamma, alpha=(1.0, 1.0, 1.0)):
    total = 0.0
    for row, label in zip(LOGITS.tolist(), LABELS.tolist()):
        p = math.exp(row[label]) / sum(map(math.exp, row))
        total -= alpha[label] * (1 - p) ** gamma * math.log(p)
    return total / len(LABELS)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_equals_the_formula_written_out(gamma):
    assert FocalLoss(gamma)(LOGITS, LABELS).item() == pytest.approx(written_out(gamma), rel=1e-5)
    alpha = [0.2, 0.3, 1.5]
    loss = FocalLoss(gamma, alpha=alpha, loss_weight=3.0)
    assert loss(LOGITS, LABELS).item() == pytest.approx(3 * written_out(gamma, alpha), rel=1e-5)


def test_gamma_zero_is_cross_entropy():
    torch.testing.assert_close(focal_loss(LOGITS, LABELS, gamma=0.0), F.cross_entropy(LOGITS, LABELS))


def test_half_precision_logits_are_taken_in_float32():
    half = FocalLoss()(LOGITS.bfloat16(), LABELS)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(focal_loss(LOGITS.bfloat16().float(), LABELS).item(), rel=1e-6)


def test_negative_gamma_is_refused():
    with pytest.raises(OptionError, match="gamma must be 0 or more, got -1"):
        FocalLoss(gamma=-1)


@pytest.mark.parametrize("alpha", [[], [0.5], [0.2, 0.3], [0.2, 0.3, 0.4, 0.1]])
def test_alpha_has_one_weight_for_each_class(alpha):
    with pytest.raises(OptionError, match=f"alpha has {len(alpha)} weights for 3 classes; give one per class"):
        FocalLoss(alpha=alpha)(LOGITS, LABELS)


def test_dcpt_loss_is_both_terms_with_their_weights():
    output, clean = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    losses = DCPTLoss(pixel_weight=2.0, classification_weight=3.0, gamma=0.5)(output, clean, LOGITS, LABELS)
    assert list(losses) == ["l_pix", "l_cls"]
    torch.testing.assert_close(losses["l_pix"], 2 * F.l1_loss(output, clean))
    assert losses["l_cls"].item() == pytest.approx(3 * written_out(0.5), rel=1e-5)
    half = DCPTLoss()(output.bfloat16(), clean.bfloat16(), LOGITS.bfloat16(), LABELS)
    assert {value.dtype for value in half.values()} == {torch.float32}
