"""Memory that a loader's processes share, forked or spawned."""

from __future__ import annotations

import mmap
import os
import uuid
from typing import Any

import numpy as np

__all__ = ["SharedMemory"]


class SharedMemory:
    """Zero-filled memory that forked and spawned children share and that takes no room until it is written to.

    Args:
        size: Bytes; ``array`` shows them as uint8.
    """

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
