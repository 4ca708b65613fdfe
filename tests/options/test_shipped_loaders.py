"""What the loaders of the shipped option files are told, and that BasicSR's own loader factory honours it."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from basicsr_plugins.core.safe_yaml import load_yaml

OPTIONS = Path(__file__).parents[2] / "options"


def sections(value):
    if isinstance(value, dict):
        if value.get("num_worker_per_gpu"):
            yield value
        for item in value.values():
            yield from sections(item)


def test_batches_of_loader_processes_are_page_locked():
    """Without it ``non_blocking`` copies wait. The demo is left out: it is for the CPU, where torch would warn."""
    files = [path for path in OPTIONS.rglob("*.yml") if "demo" not in path.as_posix()]
    found = [(path.name, section.get("pin_memory")) for path in files for section in sections(load_yaml(path))]
    assert len(found) > 60
    assert [name for name, pinned in found if pinned is not True] == []


@pytest.mark.parametrize("mode", [None, "cpu", "cuda"])
def test_stock_loaders_honour_it(mode):
    from basicsr.data import build_dataloader

    options = {
        "phase": "train", "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, "prefetch_mode": mode, "pin_memory": True,
    }  # fmt: skip
    loader = build_dataloader(TensorDataset(torch.zeros(4, 1)), options, num_gpu=0)
    assert loader.pin_memory is True
