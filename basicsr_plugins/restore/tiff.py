"""TIFF files with 8 or 16 bits, alpha, and every tag that describes the picture."""

from __future__ import annotations

import io
import zlib
from typing import Any, Optional

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

__all__ = ["described_tags", "tiff"]

#: Of the pixels and how they are stored; everything else describes the picture.
_PIXEL_TAGS = {
    *range(254, 267), 273, 274, *range(277, 280), 284, *range(288, 294), 301, 317, *range(320, 326), 330, 332, 338,
    *range(339, 344), 347, *range(512, 522), *range(529, 533),
}  # fmt: skip
_SUB_DIRECTORIES = (34665, 34853, 40965)
_PROFILE = 34675


def described_tags(image: Image.Image, with_profile: bool = True) -> dict[int, tuple[Any, Optional[int]]]:
    """Return ``{tag: (value, type)}`` of a TIFF file, the EXIF and position directories as mappings."""
    given: Any = getattr(image, "tag_v2", {})
    tags = {
        tag: (value, given.tagtype.get(tag))
        for tag, value in given.items()
        if tag not in _PIXEL_TAGS and tag not in _SUB_DIRECTORIES and (with_profile or tag != _PROFILE)
    }
    exif = image.getexif()
    for tag in _SUB_DIRECTORIES[:2]:
        directory = dict(exif.get_ifd(tag)) if tag in given else {}
        directory.pop(40965, None)  # points into the old file
        if directory:
            tags[tag] = (directory, None)
    return tags


def tiff(
    pixels: np.ndarray, alpha: Optional[np.ndarray], tags: dict[int, tuple[Any, Optional[int]]], icc: Optional[bytes]
) -> bytes:
    """Encode grey or RGB ``(h, w, 1 or 3)``, uint8 or uint16, without loss: Deflate on differences along the rows."""
    height, width = pixels.shape[:2]
    stored = pixels if alpha is None else np.concatenate([pixels, alpha[:, :, None]], axis=2)
    little = np.dtype(stored.dtype).newbyteorder("<")
    packer, packed = zlib.compressobj(6), []
    for row in stored:
        differences = row.copy()
        differences[1:] -= row[:-1]
        packed.append(packer.compress(differences.astype(little).tobytes()))
    packed.append(packer.flush())
    strip = b"".join(packed)
    directory = ImageFileDirectory_v2(b"II*\x00\x00\x00\x00\x00")
    for tag, (value, kind) in tags.items():
        if kind is not None:
            directory.tagtype[tag] = kind
        directory[tag] = value
    if icc is not None:
        directory.tagtype[_PROFILE] = 7
        directory[_PROFILE] = icc
    structure: dict[int, Any] = {
        256: width, 257: height, 258: (8 * stored.itemsize,) * stored.shape[2], 259: 8,
        262: 1 if pixels.shape[2] == 1 else 2, 273: 0, 274: 1, 277: stored.shape[2], 278: height, 279: len(strip),
        284: 1, 317: 2,
    }  # fmt: skip
    if alpha is not None:
        structure[338] = 2  # not multiplied into the colours
    for tag, value in structure.items():
        directory[tag] = value
    file = io.BytesIO()
    directory.save(file)  # the strip's place is counted from the end of the directory
    file.write(strip)
    return file.getvalue()
