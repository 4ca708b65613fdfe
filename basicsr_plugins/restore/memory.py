"""How large a tile may be: what a forward pass needs per pixel, and what is free."""

from __future__ import annotations

import contextlib
import math
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

__all__ = ["bytes_per_pixel", "free_memory", "largest_tile", "out_of_memory"]

#: Tiles are multiples of this, and never smaller.
STEP = 32
#: Beyond this a larger tile gains nothing but memory.
LARGEST = 2048
#: A CPU takes no more than this for a whole picture; for a larger one it takes tiles of ``DECENT`` pixels.
MODEST, DECENT = 1 << 30, 512


def largest_tile(per_pixel: float, free: Optional[int], modest: bool) -> int:
    """Return the side of the largest square tile whose forward pass fits into the memory that is free.

    Args:
        per_pixel: Bytes of a forward pass per pixel of the tile, from ``bytes_per_pixel``.
        free: Bytes that are free; None where that is not known.
        modest: Leave most of it to other programs (a CPU's memory is everybody's).
    """
    budget = 0.5 * (free if free is not None else 2 * MODEST)
    if modest:
        budget = min(budget, max(MODEST, per_pixel * DECENT**2))
    side = math.isqrt(int(budget / max(per_pixel, 1.0)))
    return min(max(side // STEP * STEP, STEP), LARGEST)


def bytes_per_pixel(run: Callable[[Tensor], Any], image: Tensor) -> float:
    """Return the most memory that a forward pass holds at once, in bytes per pixel of ``image`` (n, c, h, w).

    On a GPU that is what the allocator counted. On a CPU the tensors of the pass are counted, and twice that is taken,
    because a convolution may keep a copy of its input and output in another order.
    """
    pixels = image.shape[0] * image.shape[-2] * image.shape[-1]
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
        before = torch.cuda.memory_allocated(image.device)
        torch.cuda.reset_peak_memory_stats(image.device)
        run(image)
        return (torch.cuda.max_memory_allocated(image.device) - before) * 1.5 / pixels
    with _Count() as count:
        run(image)
    return count.most * 2.0 / pixels


class _Count(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive at once, as operations create them and Python forgets them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.users: dict[int, int] = {}  # by storage: a view adds a user and no bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            if isinstance(value, Tensor):
                self._add(value)
        return result

    def _add(self, tensor: Tensor) -> None:
        try:
            storage = tensor.untyped_storage()
            place, size = storage.data_ptr(), storage.nbytes()
        except (RuntimeError, NotImplementedError):  # of a layout without a storage
            return
        if not size:
            return
        if place not in self.users:
            self.now += size
            self.most = max(self.most, self.now)
        self.users[place] = self.users.get(place, 0) + 1
        weakref.finalize(tensor, self._forget, place, size).atexit = False

    def _forget(self, place: int, size: int) -> None:
        self.users[place] -= 1
        if not self.users[place]:
            del self.users[place]
            self.now -= size


def free_memory(device: torch.device) -> Optional[int]:
    """Return the bytes that a program may still take on a device, or None where nothing tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what torch holds and does not use counts as free
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    known = [free for free in (_available(), _left_of_container()) if free is not None]
    return min(known) if known else None


def _available() -> Optional[int]:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import psutil  # type: ignore[import-untyped,unused-ignore]  # used where it happens to be installed

        return int(psutil.virtual_memory().available)
    with contextlib.suppress(AttributeError, ValueError, OSError):  # a Mac: half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _left_of_container(root: Path = Path("/sys/fs/cgroup")) -> Optional[int]:
    """Return what a container's limit leaves (control groups, version 2 and 1)."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            return max(int((root / limit).read_text()) - int((root / used).read_text()), 0)
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: the GPU's, the CPU allocator's, oneDNN's, Python's or NumPy's."""
    if isinstance(error, (MemoryError, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError))):
        return True
    text = str(error).lower()
    signs = ("can't allocate memory", "out of memory", "not enough memory", "bad_alloc", "could not create a memory")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)
