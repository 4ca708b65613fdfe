"""The README's loop outside BasicSR, word for word."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def test_five_line_loop():
    net = nn.Conv2d(3, 3, 3, padding=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    loader = [(image * 0.8, image) for image in torch.rand(8, 2, 3, 16, 16)]
    values = []

    from basicsr_plugins.losses.spn_loss import SPNLoss
    from basicsr_plugins.negatives import NegativeModels

    spn, negatives = SPNLoss(loss_weight=1e-4, weights="random"), NegativeModels(net, steps=[1, 2, 3, 4])
    for lq, gt in loader:
        out = net(lq)
        loss = F.l1_loss(out, gt) + (spn(out, negatives(lq)) if negatives.ready else 0)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        negatives.update(net)
        values.append((loss - F.l1_loss(out, gt)).item())

    assert values[:4] == [0] * 4
    assert all(value < 0 for value in values[4:])
