"""Keep decoded images in memory that all loader processes share.

Decoding a 2K PNG for one 128 x 128 crop is what starves BasicSR's loader. Here an image is decoded once, by whichever
process needs it first, into memory that every process sees; nothing is decoded ahead, so training starts at once.
"""

from __future__ import annotations

import logging

import numpy as np

from basicsr_plugins.data.image_store import ImageStore
from basicsr_plugins.data.loader_options import PatchOptions
from basicsr_plugins.data.shared_memory import SharedMemory

__all__ = ["RamCache", "cached"]

_logger = logging.getLogger("basicsr")


class RamCache:
    """An image store whose decoded images stay in shared memory.

    Images get their place in the order of the store until ``limit_gb`` is reached; the others are decoded each time.

    Args:
        store: The images.
        limit_gb: Most memory to take, in units of 2^30 bytes.
    """

    def __init__(self, store: ImageStore, limit_gb: float) -> None:
        self.store = store
        self.paths = store.paths
        limit, used = int(limit_gb * 2**30), len(store)  # one byte per image says whether it is there
        self._places: list[tuple[int, tuple[int, int], int]] = []
        for position in range(len(store)):
            height, width = store.size(position)
            depth = store.bytes_per_value(position)
            used = -(-used // 64) * 64
            needed = height * width * 3 * depth
            if used + needed > limit:
                break
            self._places.append((used, (height, width), depth))
            used += needed
        self._memory = SharedMemory(used)
        self._warned = False
        _logger.info(
            "basicsr_plugins: %d of %d images (%.2f GB of at most %.2f) will be kept decoded in memory.",
            len(self._places), len(store), used / 2**30, limit_gb,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.store)

    def size(self, position: int) -> tuple[int, int]:
        """Return (h, w) of one image."""
        return self._places[position][1] if position < len(self._places) else self.store.size(position)

    def read(self, position: int) -> np.ndarray:
        """Return one image, BGR ``(h, w, 3)``; not to be written to."""
        if position >= len(self._places):
            return self.store.read(position)
        start, (height, width), depth = self._places[position]
        memory = self._memory.array
        place = memory[start : start + height * width * 3 * depth].view(np.uint8 if depth == 1 else np.uint16)
        place = place.reshape(height, width, 3)
        if not memory[position]:
            image = self.store.read(position)
            if image.shape != place.shape or image.dtype != place.dtype:
                self._warn(position)
                return image
            place[...] = image
            memory[position] = 1  # two processes may both get here: they write the same bytes
        return place

    def _warn(self, position: int) -> None:
        if not self._warned:
            self._warned = True
            path = self.paths[position]
            _logger.warning("basicsr_plugins: %s is not what its header says; it is decoded each time.", path)


def cached(store: ImageStore, options: PatchOptions) -> ImageStore | RamCache:
    """Return the store itself, or with ``cache: ram`` a cache of it."""
    return RamCache(store, options.cache_limit_gb) if options.cache == "ram" else store
