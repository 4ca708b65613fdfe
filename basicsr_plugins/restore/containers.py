"""What stands beside the pixels in PNG and JPEG files: taken out of one file and put into another, byte for byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Optional

import numpy as np

from basicsr_plugins.restore.orientation import as_upright, as_upright_xmp

__all__ = ["into_jpeg", "into_png", "jpeg_extras", "png16", "png_extras"]

_EXIF, _ICC, _MPF = b"Exif\x00\x00", b"ICC_PROFILE\x00", b"MPF\x00"
_PNG = b"\x89PNG\r\n\x1a\n"
#: Of the pixels themselves, or of an animation; everything else describes the picture.
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"hIST", b"sBIT", b"acTL", b"fcTL", b"fdAT"}
_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def png_extras(data: bytes, drop_profile: bool = False, orientation: int = 1) -> list[bytes]:
    """Return the chunks of a PNG file that are not its pixels: text, time, profile, gamma, EXIF (upright) ...

    EXIF that is written out as text (ImageMagick's way) goes where it says how the picture was turned.
    """
    kept, at = [], len(_PNG)
    dropped = _PIXEL_CHUNKS | ({b"iCCP"} if drop_profile else set())
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        textual = name in (b"tEXt", b"zTXt", b"iTXt") and content.startswith(b"Raw profile type exif")
        if name not in dropped and not (textual and orientation != 1):
            kept.append(_chunk(name, as_upright(content) if name == b"eXIf" else as_upright_xmp(content)))
        at += 12 + length
    return kept


def into_png(png: bytes, extras: Iterable[bytes], icc: Optional[bytes] = None, exif: Optional[bytes] = None) -> bytes:
    """Return a PNG file with more chunks: those of another file, else a profile and EXIF."""
    chunks = list(extras)
    if not chunks:
        chunks += [] if icc is None else [_chunk(b"iCCP", b"ICC\x00\x00" + zlib.compress(icc))]
        chunks += [] if exif is None else [_chunk(b"eXIf", exif[len(_EXIF) :] if exif.startswith(_EXIF) else exif)]
    after_header = len(_PNG) + 25
    return png[:after_header] + b"".join(chunks) + png[after_header:]


def png16(pixels: np.ndarray) -> bytes:
    """Encode ``(h, w, 1 to 4)`` uint16 (grey, grey and alpha, RGB, RGBA), which Pillow does not.

    Each row holds the differences to the row above (PNG's filter 2), which photographs compress well under.
    """
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    packer, packed = zlib.compressobj(6), []
    above = np.zeros_like(rows[0])
    for row in rows:  # by rows: a second picture in memory would be a large one
        packed.append(packer.compress(b"\x02" + (row - above).tobytes()))
        above = row
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOURS[channels], 0, 0, 0)
    return _PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"".join(packed)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def jpeg_extras(data: bytes, with_profile: bool = True) -> list[bytes]:
    """Return the segments of a JPEG file that are not its pixels: EXIF (upright), XMP, IPTC, profile, comments.

    Adobe's segment says how colours are coded and belongs to the pixels; the index of further pictures (MPF) would
    point nowhere.
    """
    kept, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        content = data[at + 4 : at + 2 + length]
        describes = marker == 0xFE or (0xE0 <= marker <= 0xEF and marker != 0xEE)
        profile = marker == 0xE2 and content.startswith(_ICC)
        if describes and not (marker == 0xE2 and content.startswith(_MPF)) and (with_profile or not profile):
            kept.append(_segment(marker, as_upright(content) if content.startswith(_EXIF) else as_upright_xmp(content)))
        at += 2 + length
    return kept


def into_jpeg(jpeg: bytes, extras: Iterable[bytes], icc: Optional[bytes] = None, exif: Optional[bytes] = None) -> bytes:
    """Return a JPEG file with more segments: those of another file, else a profile and EXIF.

    The other file's JFIF segment (with its resolution) takes the place of the encoder's own.
    """
    segments = list(extras)
    if not segments:
        if exif is not None and len(exif) < 65000:
            segments.append(_segment(0xE1, exif if exif.startswith(_EXIF) else _EXIF + exif))
        parts = [icc[at : at + 65000] for at in range(0, len(icc), 65000)] if icc else []
        segments += [_segment(0xE2, _ICC + bytes([number, len(parts)]) + part) for number, part in enumerate(parts, 1)]
    at = 2
    if jpeg[2:4] == b"\xff\xe0":
        end = 4 + struct.unpack_from(">H", jpeg, 4)[0]
        jfif = jpeg[2:end]
        at = end
        if not any(segment[:2] == b"\xff\xe0" for segment in segments):
            segments.insert(0, jfif)
    return jpeg[:2] + b"".join(segments) + jpeg[at:]


def _segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content
