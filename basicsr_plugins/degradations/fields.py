"""Fields of Gaussian noise and working memory, fast enough for a data loader."""

from __future__ import annotations

import functools
import threading

import cv2
import numpy as np

__all__ = ["scaled_normal", "scratch"]

#: Values per table; fields above a quarter of it are drawn one by one.
_TABLE = 1 << 21


def scaled_normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float, exact: bool = False) -> np.ndarray:
    """Return white Gaussian noise of deviation ``scale``, float32, contiguous.

    Drawing every value costs most of the time of a noisy crop. A small field is instead a rotation
    cos(a) u + sin(a) v of two windows of two fixed tables of 2^21 unit normals each, at random places, with a random
    angle a. So its values are independent and Gaussian within a field; the same pair of windows comes back once in
    about 10^12 fields, and then at another angle.

    Args:
        rng: Of the places and the angle, or of every value.
        shape: Of the field.
        scale: Standard deviation.
        exact: Draw every value.
    """
    size = int(np.prod(shape))
    if exact or size > _TABLE // 4:
        field = rng.standard_normal(shape, dtype=np.float32)
        field *= np.float32(scale)
        return field
    first, second = _tables()
    u, v, turn = rng.random(3)
    start, other, angle = int(u * (_TABLE - size)), int(v * (_TABLE - size)), 2.0 * np.pi * turn
    rows = shape[0]
    windows = first[start : start + size].reshape(rows, -1), second[other : other + size].reshape(rows, -1)
    return cv2.addWeighted(windows[0], scale * np.cos(angle), windows[1], scale * np.sin(angle), 0.0).reshape(shape)


_local = threading.local()


def scratch(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a float32 array to work in, the same memory each time within a thread; it must not be returned to a user.

    Fresh memory of more than 128 KB comes from the system page by page, which costs more than filtering a crop.
    """
    size = int(np.prod(shape))
    if size > _TABLE:
        return np.empty(shape, dtype=np.float32)
    kept = _local.__dict__.get(name)
    if kept is None or kept.size < size:
        kept = _local.__dict__[name] = np.empty(size, dtype=np.float32)
    return kept[:size].reshape(shape)


@functools.lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.SFC64(20240511))
    tables = rng.standard_normal(_TABLE, dtype=np.float32), rng.standard_normal(_TABLE, dtype=np.float32)
    for table in tables:
        table.setflags(write=False)
    return tables
