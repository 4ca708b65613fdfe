"""Layers that several networks share."""

from __future__ import annotations

import math

import pytest
import torch

from basicsr_plugins.archs.layers import GELU


@pytest.mark.parametrize("of_input", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("of_gradient", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_gelu_does_not_depend_on_memory_orders(of_input, of_gradient):
    x = torch.randn(2, 64, 16, 16).contiguous(memory_format=of_input).requires_grad_()
    gradient = torch.randn(2, 64, 16, 16).contiguous(memory_format=of_gradient)
    GELU()(x).backward(gradient)
    value = x.detach().double()
    density = (-(value**2) / 2).exp() / math.sqrt(2 * math.pi)
    slope = 0.5 * (1 + torch.erf(value / math.sqrt(2))) + value * density
    torch.testing.assert_close(x.grad.double(), slope * gradient.double(), atol=1e-5, rtol=1e-5)
