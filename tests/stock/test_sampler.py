"""BasicSR's sampler, patched: our data sets get stock's order before the modulo, another one in every epoch."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

import basicsr_plugins
from basicsr_plugins.stock.sampler import current_sampler


class Counting(Dataset):
    """Five samples; remembers the epoch."""

    epoch = None

    def __init__(self, takes_virtual_index: bool) -> None:
        self.takes_virtual_index = takes_virtual_index

    def __len__(self) -> int:
        return 5

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def make(ours: bool, rank: int = 0, replicas: int = 1):
    """Return a sampler that repeats the data set twice."""
    basicsr_plugins.register()
    from basicsr.data.data_sampler import EnlargedSampler

    return EnlargedSampler(Counting(ours), replicas, rank, 2)


def stock_order(epoch: int) -> list[int]:
    """Return the order that stock draws, before it is taken modulo the length."""
    return torch.randperm(10, generator=torch.Generator().manual_seed(epoch)).tolist()


@pytest.mark.parametrize("ours", [True, False])
def test_an_epoch_is_complete_without_set_epoch(ours):
    order = list(make(ours))
    assert order == [index if ours else index % 5 for index in stock_order(0)]


@pytest.mark.parametrize("ours", [True, False])
def test_every_epoch_has_its_own_order_and_the_data_set_hears_of_it(ours):
    sampler = make(ours)
    for epoch in (0, 1, 7):
        sampler.set_epoch(epoch)
        assert sampler.dataset.epoch == epoch
        assert list(sampler) == [index if ours else index % 5 for index in stock_order(epoch)]


def test_the_sampler_of_the_running_training_is_known():
    sampler = make(True)
    sampler.set_epoch(0)
    assert current_sampler() is sampler


def test_the_ranks_share_an_epoch_without_overlap():
    first, second = make(True, 0, 2), make(True, 1, 2)
    for sampler in (first, second):
        sampler.set_epoch(3)
    assert sorted([*first, *second]) == list(range(10))
    assert not set(first) & set(second)


def test_a_resume_shifts_one_epoch_of_one_sampler():
    calls = []
    sampler, other = make(True), make(True)
    sampler.resume_at(4, lambda: calls.append("before"))
    list(sampler)  # a prefetcher makes an iterator before the first epoch
    for epoch, skipped in ((2, 4), (3, 0)):
        for each in (sampler, other):
            each.set_epoch(epoch)
        assert list(sampler) == stock_order(epoch)[skipped:]
        assert sampler.skipped_samples == skipped
        assert list(other) == stock_order(epoch)
    assert calls == ["before"]
