"""Random draws of a data set that depend on seed, epoch and sample index, and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
import torch
from torch.utils.data import Dataset

from basicsr_plugins.data.loader_options import LoaderOptions
from basicsr_plugins.data.shared_memory import SharedMemory

__all__ = ["SampleSeeds", "SeededDataset"]

_UNSET = -1
#: Places of the table of visits; no data set has as many samples, and only what is used takes memory.
_TABLE = 1 << 27


class SampleSeeds:
    """Give each sample of a data set its own generator: ``SeedSequence([seed, epoch, index])``.

    BasicSR seeds the global generators of its workers with the same number at the start of every epoch, so that each
    epoch repeats the draws of the first, and other draws appear with another number of workers. Here neither happens,
    and a run that is resumed at an epoch sees the draws it would have seen. Validation uses the index alone.

    In a plain ``DataLoader`` nobody sets the epoch: each sample counts its own visits, in memory that the workers share,
    so that the draws depend on the seed, on no worker and on no order. ``set_epoch`` makes a run resumable.

    Args:
        seed: Base seed; None takes the seed of torch's generator minus the rank, which BasicSR sets to ``manual_seed``
            plus the rank. Not used outside training unless given.
        train: Whether epochs draw differently.
    """

    def __init__(self, seed: Optional[int] = None, train: bool = True) -> None:
        if seed is None:
            seed = (torch.initial_seed() - _rank()) % (1 << 63) if train else 0
        self.seed = int(seed)
        self.train = train
        self.salt: tuple[int, ...] = ()
        # shared memory: with persistent workers, the loader's processes outlive the epoch in which they were made
        self._epoch = torch.full((), _UNSET, dtype=torch.int64).share_memory_()
        self._visits = _Visits() if train else None
        self._rank = _rank()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next samples belong to; the patched sampler of BasicSR calls this."""
        self._epoch.fill_(int(epoch))

    @property
    def epoch(self) -> int:
        """The epoch in use; 0 outside training. Where nobody sets it, how often the sample has been served before."""
        if not self.train:
            return 0
        epoch = int(self._epoch)
        return epoch if epoch != _UNSET or self._visits is None else self._visits.now

    def serve(self, index: int) -> None:
        """Begin with the sample at ``index``. A parent's seeds have done so for those of its children."""
        if self._visits is not None and not self.salt and int(self._epoch) == _UNSET:
            self._visits.count(index)

    def generator(self, index: int) -> np.random.Generator:
        """Return the generator of the sample at ``index`` (not taken modulo the length of the data set)."""
        entropy = [self.seed, self.epoch, int(index), *self.salt]
        if self._rank and int(self._epoch) == _UNSET:  # each rank counts for itself
            entropy.append(self._rank << 32)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))

    def adopt(self, parent: SampleSeeds, position: int) -> None:
        """Become the seeds of a child data set: the parent's seed and epoch, and draws unlike those of its siblings."""
        self.seed, self.train, self._epoch, self._visits = parent.seed, parent.train, parent._epoch, parent._visits
        self.salt = (*parent.salt, position + 1)


class SeededDataset(Dataset):
    """Base of our data sets: every draw from ``seeds``, every index the sampler may give.

    Args:
        options: The checked options.
    """

    #: BasicSR's sampler hands over indices beyond the length, so that repetitions within an epoch draw differently.
    takes_virtual_index = True

    def __init__(self, options: LoaderOptions) -> None:
        self.options: Any = options
        self.seeds = SampleSeeds(options.seed, train=options.phase == "train")

    def __len__(self) -> int:
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next samples."""
        self.seeds.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def _serve(self, index: int) -> int:
        """Count the sample at ``index``, which only training may take beyond the length, and return its place."""
        length = len(self)
        if index < 0 or (index >= length and self.options.phase != "train"):
            raise IndexError(f"sample {index} of {length}")
        self.seeds.serve(index)
        return index % length


class _Visits:
    """How often each sample has been served, counted over all processes of a loader."""

    def __init__(self) -> None:
        self._memory = SharedMemory(2 * _TABLE)
        self.now = 0

    def count(self, index: int) -> None:
        """Make ``now`` the number of earlier visits to ``index``, and count this one."""
        visits = self._memory.array.view(np.uint16)
        self.now = int(visits[index % _TABLE])
        visits[index % _TABLE] = (self.now + 1) % (1 << 16)


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
