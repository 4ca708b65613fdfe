"""What several tests of commands share: a small base with two adapters."""

from __future__ import annotations

import copy

import pytest
import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters import attach_adapter
from basicsr_plugins.archs.nafnet_arch import NAFNet

ARGUMENTS = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}


@pytest.fixture
def base_with_adapters(tmp_path):
    """Write base.pth and adapters/rain, adapters/haze; return the base."""
    pytest.importorskip("peft")
    torch.manual_seed(0)
    net = NAFNet(**ARGUMENTS).eval()
    for parameter in net.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    checkpoints.write(tmp_path / "base.pth", net.state_dict(), {"type": "NAFNet", **ARGUMENTS})
    for name in ("rain", "haze"):
        adapter = attach_adapter(copy.deepcopy(net), {"r": 2}, network="NAFNet", path=str(tmp_path / "base.pth"))
        for parameter in adapter.parameters():
            parameter.data.normal_(std=0.3)
        adapter.save(tmp_path / "adapters" / name, name)
    return net
