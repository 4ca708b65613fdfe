"""Keep decoded images in memory that all loader processes share.

Decoding a 2K PNG for one 128 x 128 crop is what starves BasicSR's loader. Here an image is decoded once, by whichever
process needs it first, into memory that every process sees; nothing is decoded ahead, so training starts at once.
"""

from __future__ import annotations

import logging
import mmap
import os
import uuid
from typing import Any

import numpy as np

from basicsr_plugins.data.image_store import ImageStore
from basicsr_plugins.data.loader_options import PatchOptions

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
        self._memory = _SharedMemory(used)
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


class _SharedMemory:
    """Zero-filled memory that forked and spawned children share and that takes no room until it is written to."""

    def __init__(self, size: int) -> None:
        self.size = max(1, size)
        self._owner, self._file = os.getpid(), -1
        self._name = f"basicsr_plugins_cache_{uuid.uuid4().hex}"
        if hasattr(os, "memfd_create"):  # /dev/shm is often tiny in containers; this is not part of it
            self._file = os.memfd_create(self._name)
            os.ftruncate(self._file, self.size)
        self._map(self._file)

    def _map(self, file: int) -> None:
        self._mmap = mmap.mmap(file, self.size)
        self.array = np.frombuffer(self._mmap, dtype=np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size, "_owner": self._owner, "_file": self._file, "_name": self._name}

    def __setstate__(self, state: dict[str, Any]) -> None:  # a spawned child
        path = f"/proc/{state['_owner']}/fd/{state['_file']}"
        self.__dict__.update(state)
        self._file = -1  # the owner's to close
        try:
            # the number may belong to another file by now: only the one with our name is ours
            file = os.open(path, os.O_RDWR) if self._name in os.readlink(path) else -1
        except OSError:  # the owner is gone, or there is no such system: a cache of one's own
            file = -1
        self._map(file)
        if file >= 0:
            os.close(file)

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0 and self._owner == os.getpid():
            os.close(self._file)
