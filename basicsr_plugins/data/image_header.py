"""The header of an image file, read without decoding: size as stored, bits per value, EXIF orientation, end mark."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Optional

import cv2
import numpy as np

__all__ = ["Header", "read_header"]

_TAG = 0x0112  # orientation, a SHORT in an EXIF block
_EXIF = b"Exif\x00\x00"


@dataclass(frozen=True)
class Header:
    """What a file says of itself beside its pixels.

    Attributes:
        kind: ``.png``, ``.jpg`` or ``.webp``.
        stored: (h, w) before any turning.
        bits: Of one value.
        orientation: EXIF's, 1 to 8; None where it takes a decoder to know what becomes of it.
        whole: Whether the file goes on to its own end mark.
    """

    kind: str
    stored: tuple[int, int]
    bits: int
    orientation: Optional[int]
    whole: bool

    @property
    def size(self) -> Optional[tuple[int, int]]:
        """(h, w) of what OpenCV makes of the file, None where only decoding tells."""
        if self.orientation is None:
            return None
        height, width = self.stored
        return (width, height) if _opencv_swaps(self.kind, self.orientation) else (height, width)


def read_header(file: BinaryIO) -> Optional[Header]:
    """Return the header of a PNG, JPEG or WebP file, known by its content and not by its name; None of anything else.

    Example:
        >>> import cv2, io, numpy as np
        >>> encoded = cv2.imencode(".png", np.zeros((2, 3), np.uint16))[1].tobytes()
        >>> read_header(io.BytesIO(encoded))
        Header(kind='.png', stored=(2, 3), bits=16, orientation=1, whole=True)
    """
    start = file.read(12)
    try:
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(file, file.seek(0, io.SEEK_END))
        if start.startswith(b"\xff\xd8\xff"):
            file.seek(2)
            return _jpeg(file)
        if start[:4] == b"RIFF" and start[8:] == b"WEBP":
            return _webp(file, 8 + struct.unpack("<I", start[4:8])[0])
    except (struct.error, IndexError):  # it ends too early; whoever decodes it says so
        pass
    return None


def _png(file: BinaryIO, total: int) -> Optional[Header]:
    file.seek(8)
    stored, bits, pixels_seen = (0, 0), 8, False
    orientation: Optional[int] = 1
    while True:
        length, name = struct.unpack(">I4s", file.read(8))
        after = file.tell() + length + 4
        if name == b"IHDR":
            width, height, bits = struct.unpack(">IIB", file.read(9))
            stored = (height, width)
        elif name == b"eXIf":  # behind the pixels, some decoders never see it
            orientation = None if pixels_seen else _orientation(file.read(length))
        pixels_seen |= name == b"IDAT"
        if name == b"IEND" or after + 8 > total:
            return Header(".png", stored, bits, orientation, name == b"IEND") if all(stored) else None
        file.seek(after)


def _jpeg(file: BinaryIO) -> Optional[Header]:
    stored, bits = (0, 0), 8
    found: list[Optional[int]] = []
    while True:
        filler, marker = struct.unpack("BB", file.read(2))
        while marker == 0xFF:
            marker = file.read(1)[0]
        if filler != 0xFF:
            return None
        length = struct.unpack(">H", file.read(2))[0] - 2
        after = file.tell() + length
        if marker == 0xDA:  # the pixels, in which FF D9 can only be the end
            orientation = 1 if not found else found[0] if len(found) == 1 else None
            return Header(".jpg", stored, bits, orientation, _has_end(file, after)) if all(stored) else None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, *size = struct.unpack(">BHH", file.read(5))
            stored = (size[0], size[1])
        elif marker == 0xE1 and file.read(len(_EXIF)) == _EXIF:
            found.append(_orientation(file.read(length - len(_EXIF))))
        file.seek(after)


def _has_end(file: BinaryIO, start: int) -> bool:
    end = file.seek(0, io.SEEK_END)
    for place in (max(start, end - 64), start):  # phones put films behind the end
        file.seek(place)
        if b"\xff\xd9" in file.read():
            return True
    return False


def _webp(file: BinaryIO, end: int) -> Optional[Header]:
    stored = (0, 0)
    orientation: Optional[int] = 1
    total = file.seek(0, io.SEEK_END)
    file.seek(12)
    while file.tell() + 8 <= min(end, total):
        name, length = struct.unpack("<4sI", file.read(8))
        after = file.tell() + length + length % 2
        if name == b"EXIF":
            block = file.read(length)
            orientation = _orientation(block[len(_EXIF) :] if block.startswith(_EXIF) else block)
        elif not any(stored):
            stored = _webp_size(name, file.read(10))
        file.seek(after)
    return Header(".webp", stored, 8, orientation, total >= end) if all(stored) else None


def _webp_size(name: bytes, data: bytes) -> tuple[int, int]:
    if name == b"VP8X":  # the canvas, 24 bits each, less one
        return int.from_bytes(data[7:10], "little") + 1, int.from_bytes(data[4:7], "little") + 1
    if name == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if name == b"VP8 ":
        width, height = struct.unpack("<HH", data[6:10])
        return height & 0x3FFF, width & 0x3FFF
    return 0, 0


def _orientation(block: bytes) -> Optional[int]:
    """Return the orientation in an EXIF block: 1 without one, None where the block does not follow the rules."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(block[:4])
    if order is None:
        return None
    try:
        start = struct.unpack(f"{order}I", block[4:8])[0]
        count = struct.unpack(f"{order}H", block[start : start + 2])[0]
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number, value = struct.unpack(f"{order}HHIH", block[place : place + 10])
            if tag == _TAG:
                return None if (kind, number) != (3, 1) else value if 1 <= value <= 8 else 1
    except struct.error:
        return None
    return 1


@functools.cache
def _opencv_swaps(kind: str, orientation: int) -> bool:
    """Whether this OpenCV turns a file of that kind on its side; its version decides which kinds."""
    if orientation < 5:
        return False
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    turned = cv2.imdecode(np.frombuffer(_tiny(kind, orientation), np.uint8), flags)
    return turned is not None and turned.shape[0] > turned.shape[1]


def _tiny(kind: str, orientation: int) -> bytes:
    """Return a file of 8 x 16 pixels with that EXIF orientation."""
    plain = cv2.imencode(kind, np.zeros((8, 16, 3), np.uint8))[1].tobytes()
    block = struct.pack("<4sIHHHIHHI", b"II*\x00", 8, 1, _TAG, 3, 1, orientation, 0, 0)
    if kind == ".png":
        chunk = b"eXIf" + block
        return plain[:33] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]
    if kind == ".jpg":
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(_EXIF) + len(block)) + _EXIF + block + plain[2:]
    canvas = struct.pack("<4sIB3x3s3s", b"VP8X", 10, 8, (15).to_bytes(3, "little"), (7).to_bytes(3, "little"))
    chunks = b"WEBP" + canvas + plain[12:] + struct.pack("<4sI", b"EXIF", len(block)) + block
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks
