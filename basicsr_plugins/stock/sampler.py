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

import torch

__all__ = ["current_sampler", "patch", "virtual_indices"]


def current_sampler() -> Any:
    """Return the ``EnlargedSampler`` that was made last and is still in use, or None.

    BasicSR makes it before the model and hands it to nobody; the class remembers it weakly, so that a training that is
    over counts no batches of the next one.
    """
    newest = getattr(_sampler_class(), "basicsr_plugins_newest", None)
    return None if newest is None else newest()


def patch() -> None:
    """Let the sampler tell our data sets the epoch, and begin an epoch in its middle. Idempotent.

    A sampler gets ``resume_at(count, before)``: its next epoch begins after the first ``count`` samples of this rank;
    ``before`` is called once, when that epoch's iteration begins. ``skipped_samples`` is what the running epoch left
    out.
    """
    sampler_class = _sampler_class()
    stock_init: Callable[..., None] = sampler_class.__init__
    stock_set_epoch: Callable[..., None] = sampler_class.set_epoch
    stock_iter: Callable[..., Iterator[int]] = sampler_class.__iter__
    if getattr(stock_set_epoch, "basicsr_plugins_patched", False):
        return

    @functools.wraps(stock_init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        stock_init(self, *args, **kwargs)
        sampler_class.basicsr_plugins_newest = weakref.ref(self)

    def resume_at(self: Any, count: int, before: Callable[[], None] | None = None) -> None:
        self._resume = (count, before)

    @functools.wraps(stock_set_epoch)
    def set_epoch(self: Any, epoch: int) -> None:
        stock_set_epoch(self, epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        # taken here and not by the first iterator: stock's prefetchers make one before the first epoch
        (self.skipped_samples, self._before), self._resume = self._resume, (0, None)

    @functools.wraps(stock_iter)
    def iterate(self: Any) -> Iterator[int]:
        before, self._before = self._before, None
        if before is not None:
            before()
        if getattr(self.dataset, "takes_virtual_index", False):
            indices = iter(virtual_indices(self))
        else:
            indices = stock_iter(self)
        for _ in range(self.skipped_samples):
            next(indices, None)
        return indices

    sampler_class.skipped_samples, sampler_class._before, sampler_class._resume = 0, None, (0, None)
    set_epoch.basicsr_plugins_patched = True  # type: ignore[attr-defined]
    sampler_class.__init__, sampler_class.resume_at = __init__, resume_at
    sampler_class.set_epoch, sampler_class.__iter__ = set_epoch, iterate


def _sampler_class() -> Any:
    return importlib.import_module("basicsr.data.data_sampler").EnlargedSampler


def virtual_indices(sampler: Any) -> list[int]:
    """Return this rank's indices of the epoch in stock's order, before stock takes them modulo the length."""
    generator = torch.Generator()
    generator.manual_seed(sampler.epoch)
    order = torch.randperm(sampler.total_size, generator=generator).tolist()
    return order[sampler.rank : sampler.total_size : sampler.num_replicas]
