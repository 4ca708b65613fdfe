"""Cross-entropy: torch's, but for labels of which none counts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.losses.cross_entropy_loss import CrossEntropyLoss

SHAPES = [(4,), (4, 5, 6)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_torchs_to_the_last_bit(shape, smoothing):
    logits, labels = torch.randn(shape[0], 3, *shape[1:]), torch.randint(3, shape)
    labels.view(-1)[::3] = 7
    expected = F.cross_entropy(logits, labels, ignore_index=7, label_smoothing=smoothing)
    ours = CrossEntropyLoss(loss_weight=0.5, ignore_index=7, label_smoothing=smoothing)
    assert torch.equal(ours(logits, labels), 0.5 * expected)


def test_shares_of_classes_are_targets_too():
    logits, shares = torch.randn(4, 3), torch.rand(4, 3).softmax(dim=1)
    assert torch.equal(CrossEntropyLoss()(logits, shares), F.cross_entropy(logits, shares))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_that_counts_is_a_loss_of_zero_with_a_gradient_of_zero(shape, smoothing):
    logits = torch.randn(shape[0], 3, *shape[1:], requires_grad=True)
    loss = CrossEntropyLoss(ignore_index=7, label_smoothing=smoothing)(logits, torch.full(shape, 7))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(OptionError, match=f"label_smoothing must be at least 0 and below 1, got {smoothing}"):
        CrossEntropyLoss(label_smoothing=smoothing)
