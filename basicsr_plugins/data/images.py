"""Read image files: any bit depth, grey or alpha, to RGB; and look at a file without decoding it."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from basicsr_plugins.core.errors import DataError

__all__ = ["bytes_per_value", "decode", "image_problem", "image_size", "read_image", "to_float"]

_UNREADABLE = "cannot be decoded as an image"
_FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH  # drops alpha, keeps grey and 16 bits, applies EXIF orientation


def decode(data: bytes, name: str) -> np.ndarray:
    """Decode an image file's bytes to BGR ``(h, w, 3)``, uint8 or uint16.

    Grey is repeated to three channels, alpha is dropped, 16 bits stay 16 bits.

    Raises:
        DataError: It is empty or cannot be decoded; the text names the file.
    """
    if not data:
        raise DataError(f"{name}: the file is empty (0 bytes).")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error as error:  # a header that claims more pixels than OpenCV takes
        raise DataError(f"{name}: cannot be decoded as an image ({' '.join(str(error).split())}).") from error
    if image is None:
        raise DataError(f"{name}: cannot be decoded as an image; it is broken or of another type than its name says.")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: pixels of type {image.dtype} are not supported, only 8 and 16 bits.")
    if image.ndim == 2 or image.shape[2] == 1:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return image


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read and decode one file; see ``decode``.

    Raises:
        DataError: The file cannot be read or decoded.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return decode(data, str(path))


def to_float(image: np.ndarray) -> np.ndarray:
    """Return a BGR uint8 or uint16 image as float32 RGB in [0, 1], contiguous."""
    full = np.float32(65535.0 if image.dtype == np.uint16 else 255.0)
    return np.divide(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2RGB), full, dtype=np.float32)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (h, w) from the header of a file, decoding only what the header readers do not know.

    Raises:
        DataError: It is no image.
    """
    from PIL import Image  # comes with torchvision

    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8) if image.format in ("JPEG", "MPO") else False
        return (width, height) if turned else (height, width)
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: its header claims an image larger than any that is read ({error}).") from error
    except OSError:  # among them 16-bit colour TIFF, which OpenCV reads
        return read_image(path).shape[:2]


def bytes_per_value(path: str | os.PathLike[str]) -> int:
    """Return 2 for 16-bit PNG and TIFF files, else 1, from the header."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".png":
        with open(path, "rb") as file:
            header = file.read(25)  # signature 8, length 4, "IHDR", width 4, height 4, then the bit depth
        return 2 if len(header) == 25 and header[24] == 16 else 1
    if suffix in (".tif", ".tiff", ".pgm", ".ppm"):
        return read_image(path).dtype.itemsize
    return 1


def image_problem(path: str | os.PathLike[str], full: bool = False) -> str:
    """Return what is wrong with a file (missing, empty, cut off, no image), or an empty text.

    Only the header and the tail are read, unless the tail looks cut off or ``full`` asks for decoding.
    """
    try:
        if os.path.getsize(path) == 0:
            return "is empty (0 bytes)"
        image_size(path)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except DataError as error:
        return "claims to be larger than any image that is read" if "larger" in str(error) else _UNREADABLE
    if full:
        return "" if _decodes(path) else "cannot be decoded to its end"
    return "" if _ends_well(path) or _decodes(path) else "is cut off before its end"


def _ends_well(path: str | os.PathLike[str]) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    end = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}.get(suffix)
    if end is None:
        return False
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 64))
        return end in file.read()


def _decodes(path: str | os.PathLike[str]) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
        return True
    except (OSError, SyntaxError, Image.DecompressionBombError):
        pass
    try:
        read_image(path)
    except DataError:
        return False
    # OpenCV fills what is missing with grey and says nothing: trust it only where Pillow does not know the format
    return os.path.splitext(path)[1].lower() in (".tif", ".tiff")
