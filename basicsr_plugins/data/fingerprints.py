"""What is compared of an image file: the SHA-256 of its bytes, and a perceptual hash of what it shows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np

from basicsr_plugins.core.errors import DependencyError
from basicsr_plugins.data.images import decode, image_size, whole_bytes

__all__ = ["Fingerprint", "fingerprint", "perceptual_hash"]

_SIDE = 32  # of what imagehash.phash shrinks an image to
#: A picture with less contrast (of 255) has no structure: its hash would be that of noise.
_FLAT = 4


@dataclass(frozen=True)
class Fingerprint:
    """One file.

    Args:
        path: The file.
        bytes: Its length.
        size: (h, w), upright.
        sha256: Of the file.
        hashes: Perceptual ones of 64 bits: upright first, then turned and mirrored; empty where none was asked for,
            or the picture is of one colour.
    """

    path: Path
    bytes: int
    size: tuple[int, int]
    sha256: str
    hashes: tuple[int, ...] = ()


def perceptual_hash() -> Callable[[Any], Any]:
    """Return ``imagehash.phash``.

    Raises:
        DependencyError: ImageHash is not installed.
    """
    try:
        from imagehash import phash
    except ImportError as error:
        raise DependencyError(
            'near-duplicates need the package ImageHash: pip install "basicsr-plugins[dedup]"; --exact does without.'
        ) from error
    return phash


def fingerprint(path: Path, phash: Optional[Callable[[Any], Any]] = None, turned: bool = False) -> Fingerprint:
    """Return the fingerprint of one file.

    Args:
        path: The file.
        phash: What ``perceptual_hash`` returns; left out, only bytes are compared and nothing is decoded.
        turned: Also hash the seven other ways to turn and mirror the picture.

    Raises:
        DataError: It cannot be read.
    """
    data = whole_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if phash is None:
        return Fingerprint(path, len(data), image_size(path), sha256)
    image = decode(data, str(path), keep_grey=True)
    return Fingerprint(path, len(data), image.shape[:2], sha256, _hashes(image, phash, turned))


def _hashes(image: np.ndarray, phash: Callable[[Any], Any], turned: bool) -> tuple[int, ...]:
    from PIL import Image

    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    rgb = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    # the first step of phash itself; done here, the turned copies cost next to nothing
    lanczos = getattr(Image, "Resampling", Image).LANCZOS  # Pillow 9.0 has it in the module
    small = Image.fromarray(rgb).convert("L").resize((_SIDE, _SIDE), lanczos)
    pixels = np.asarray(small)
    if int(pixels.max()) - int(pixels.min()) < _FLAT:
        return ()
    ways = [np.rot90(way, turn) for way in (pixels, pixels[:, ::-1]) for turn in range(4)] if turned else [pixels]
    return tuple(int(str(phash(Image.fromarray(np.ascontiguousarray(way)))), 16) for way in ways)
