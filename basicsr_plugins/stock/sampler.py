"""BasicSR's training sampler, patched: epochs and virtual indices for our data sets, and an exact resume.

Data sets that draw from (seed, epoch, index) are told the epoch and get the index before it is taken modulo the length,
so that repeats of an image draw differently; after a resume the first epoch goes on where it was left. BasicSR's own
worker seeding repeats the same draws in every epoch. Other data sets run stock code unchanged.
"""

from __future__ import annotations

import functools
import importlib
import weakref
from collections.abc import Iterator
from typing import Any, Callable

__all__ = ["current_sampler", "patch", "skip_samples", "virtual_indices"]

#: weak: a training that is over counts no batches of the next one
_current_sampler: weakref.ref[Any] | None = None
_samples_to_skip = 0
_before_skipping: Callable[[], None] | None = None


def current_sampler() -> Any:
    """Return the ``EnlargedSampler`` of the running training, or None."""
    return None if _current_sampler is None else _current_sampler()


def skip_samples(count: int, before: Callable[[], None] | None = None) -> None:
    """Let the next epoch of the training sampler begin after its first ``count`` samples (exact resume).

    Args:
        count: Samples of this rank.
        before: Called once, when that epoch's iteration begins.
    """
    global _samples_to_skip, _before_skipping
    _samples_to_skip, _before_skipping = count, before


def patch() -> None:
    """Let the sampler tell our data sets the epoch. Idempotent."""
    sampler_class = importlib.import_module("basicsr.data.data_sampler").EnlargedSampler
    stock_set_epoch: Callable[..., None] = sampler_class.set_epoch
    stock_iter: Callable[..., Iterator[int]] = sampler_class.__iter__
    if getattr(stock_set_epoch, "basicsr_plugins_patched", False):
        return

    @functools.wraps(stock_set_epoch)
    def set_epoch(self: Any, epoch: int) -> None:
        global _current_sampler, _samples_to_skip, _before_skipping
        stock_set_epoch(self, epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        _current_sampler = weakref.ref(self)
        # taken here and not by the first iterator: stock's prefetchers make one before the first epoch
        self.skipped_samples, _samples_to_skip = _samples_to_skip, 0
        self.before_skipping, _before_skipping = _before_skipping, None

    @functools.wraps(stock_iter)
    def iterate(self: Any) -> Iterator[int]:
        before, self.before_skipping = getattr(self, "before_skipping", None), None
        if before is not None:
            before()
        if getattr(self.dataset, "takes_virtual_index", False):
            indices = iter(virtual_indices(self))
        else:
            indices = stock_iter(self)
        for _ in range(getattr(self, "skipped_samples", 0)):
            next(indices, None)
        return indices

    set_epoch.basicsr_plugins_patched = True  # type: ignore[attr-defined]
    sampler_class.set_epoch = set_epoch
    sampler_class.__iter__ = iterate


def virtual_indices(sampler: Any) -> list[int]:
    """Return this rank's indices of the epoch in stock's order, before stock takes them modulo the length."""
    import torch

    generator = torch.Generator()
    generator.manual_seed(sampler.epoch)
    order = torch.randperm(sampler.total_size, generator=generator).tolist()
    return order[sampler.rank : sampler.total_size : sampler.num_replicas]
