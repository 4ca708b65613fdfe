"""EXIF orientation, handled once: pixels are turned upright, and the tag says 1 from then on."""

from __future__ import annotations

import re
import struct
from typing import Optional

import numpy as np

__all__ = ["as_upright", "as_upright_xmp", "stored_orientation", "upright"]

_PREFIX = b"Exif\x00\x00"
_TAG = 0x0112


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels ``(h, w, c)`` as they are to be looked at, for an EXIF orientation of 1 to 8."""
    if orientation in (5, 6, 7, 8):  # stored by columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def as_upright(exif: bytes) -> bytes:
    """Return an EXIF block with orientation 1; every other byte stays (maker notes, thumbnail, position)."""
    start = len(_PREFIX) if exif.startswith(_PREFIX) else 0
    place = _place(exif[start:])
    if place is None:
        return exif
    at, order = place
    return exif[: start + at] + struct.pack(f"{order}H", 1) + exif[start + at + 2 :]


def as_upright_xmp(text: bytes) -> bytes:
    """Return XMP with orientation 1, which some readers believe where EXIF says nothing; its length stays."""
    return re.sub(rb'(tiff:Orientation(?:\s*=\s*["\']|>))[2-8]', rb"\g<1>1", text)


def stored_orientation(tiff: bytes) -> int:
    """Return the orientation that a TIFF file states; 1 where it states none."""
    place = _place(tiff)
    return 1 if place is None else int(struct.unpack_from(f"{place[1]}H", tiff, place[0])[0])


def _place(tiff: bytes) -> Optional[tuple[int, str]]:
    """Return where a TIFF structure keeps its orientation, and its byte order for ``struct``; None if it has none."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory + 2 > len(tiff):
        return None
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(tiff) - 11), 12):
        if struct.unpack_from(f"{order}H", tiff, entry)[0] == _TAG:
            return entry + 8, order
    return None
