"""Focal loss at saturated answers."""

from __future__ import annotations

import pytest
import torch

from basicsr_plugins.losses.focal_loss import FocalLoss


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saturated_right_answer_has_no_gradient_and_no_nan(gamma, dtype):
    logits = torch.tensor([[5000.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = FocalLoss(gamma=gamma)(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
