"""The averaged copy: stock's arithmetic for weights, buffers as well, constants to the last bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from basicsr_plugins.training.ema import update_average


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.Parameter(torch.rand(7), requires_grad=False)
        self.register_buffer("mask", torch.tensor([0.0, -100.0, -float("inf"), 0.1]))

    def forward(self, x):
        return self.norm(self.conv(x))


def test_weights_and_buffers_follow_the_formula_element_by_element():
    network, decay = Net(), 0.9
    average = copy.deepcopy(network).requires_grad_(False)
    slow = {key: value.clone() for key, value in average.state_dict().items()}
    for step in range(4):
        with torch.no_grad():
            network.conv.weight.add_(torch.randn_like(network.conv.weight))
        network(torch.rand(2, 3, 8, 8) + step)
        update_average(average, network, decay)
        for key, value in network.state_dict().items():
            for index in range(value.numel()):
                old, new = slow[key].flatten(), value.flatten()
                if value.is_floating_point() and old[index] != new[index]:
                    old[index] = decay * old[index] + (1 - decay) * new[index]
                else:
                    old[index] = new[index]
    for key, value in average.state_dict().items():
        torch.testing.assert_close(value, slow[key], rtol=1e-6, atol=1e-7)
    assert float(average.norm.running_mean.abs().sum()) > 0
    assert int(average.norm.num_batches_tracked) == 4


def test_stock_arithmetic_to_the_last_bit():
    network = nn.Conv2d(3, 8, 3)
    average, stock = copy.deepcopy(network).requires_grad_(False), copy.deepcopy(network)
    for _ in range(5):
        with torch.no_grad():
            network.weight.add_(torch.randn_like(network.weight))
        update_average(average, network, 0.999)
        for ours, theirs in zip(stock.parameters(), network.parameters()):
            ours.data.mul_(0.999).add_(theirs.data, alpha=1 - 0.999)
    assert torch.equal(average.weight, stock.weight)
    assert torch.equal(average.bias, stock.bias)


def test_constants_do_not_drift_and_infinite_masks_stay():
    network = Net()
    average = copy.deepcopy(network).requires_grad_(False)
    for _ in range(200):
        update_average(average, network, 0.997)
    assert torch.equal(average.mask, network.mask)
    assert torch.equal(average.frozen, network.frozen)


@pytest.mark.parametrize("decay", [0.0])
def test_decay_zero_copies(decay):
    network, average = Net(), Net().requires_grad_(False)
    update_average(average, network, decay)
    for key, value in network.state_dict().items():
        assert torch.equal(average.state_dict()[key], value)
