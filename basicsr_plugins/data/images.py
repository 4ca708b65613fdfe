"""Read image files: any bit depth, grey or alpha, to RGB; and look at a file without decoding it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.data.image_header import Header, read_header

__all__ = [
    "as_png",
    "bytes_per_value",
    "decode",
    "has_alpha",
    "image_problem",
    "image_size",
    "read_image",
    "to_float",
    "whole_bytes",
]

_BROKEN = "cannot be decoded as an image"
#: Below so many pixels OpenCV's limit is out of sight, whatever the environment sets it to.
_SURELY_READ = 1 << 26
_FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH  # drops alpha, keeps grey and 16 bits, applies EXIF orientation


def decode(data: bytes, name: str, keep_grey: bool = False) -> np.ndarray:
    """Decode an image file's bytes to BGR ``(h, w, 3)``, uint8 or uint16.

    Grey is repeated to three channels, alpha is dropped, 16 bits stay 16 bits.

    Args:
        data: The whole file.
        name: Of the file, for messages.
        keep_grey: Return grey as ``(h, w)``, to write it again.

    Raises:
        DataError: It is empty or cannot be decoded; the text names the file.
    """
    if not data:
        raise DataError(f"{name}: is empty (0 bytes).")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error as error:
        text = " ".join(str(error).split())
        if "CV_IO_MAX_IMAGE" in text:
            raise DataError(f"{name}: claims to be larger than any image that is read ({text}).") from error
        raise DataError(f"{name}: {_BROKEN} ({text}).") from error
    if image is None:
        raise DataError(f"{name}: {_BROKEN}; it is broken or of another type than its name says.")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: pixels of type {image.dtype} are not supported, only 8 and 16 bits.")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 2 and not keep_grey:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return image


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read and decode one file; see ``decode``.

    Raises:
        DataError: The file cannot be read or decoded.
    """
    return decode(_bytes(path), str(path))


def whole_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an image file that is whole, as its header and its end say.

    Raises:
        DataError: It is not, or cannot be read.
    """
    problem = image_problem(path)
    if problem:
        raise DataError(f"{path}: {problem}.")
    return _bytes(path)


def as_png(image: np.ndarray, compression: int) -> bytes:
    """Return the PNG file of an image as ``decode`` gives it: BGR or grey, 8 or 16 bits."""
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, compression])
    return encoded.tobytes()


def _bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def to_float(image: np.ndarray) -> np.ndarray:
    """Return a BGR uint8 or uint16 image as float32 RGB in [0, 1], contiguous."""
    full = np.float32(65535.0 if image.dtype == np.uint16 else 255.0)
    return np.divide(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2RGB), full, dtype=np.float32)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (h, w) of what ``read_image`` returns, EXIF orientation applied, from the header wherever that tells.

    Raises:
        DataError: It is no image.
    """
    header = _header(path)
    size = _other_size(path) if header is None else header.size
    return read_image(path).shape[:2] if size is None else size


def bytes_per_value(path: str | os.PathLike[str]) -> int:
    """Return 2 for 16-bit images, else 1, from the header wherever that tells."""
    header = _header(path)
    if header is not None:
        return 2 if header.bits == 16 else 1
    return 1 if str(path).lower().endswith(".bmp") else read_image(path).dtype.itemsize


def has_alpha(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds transparency, which ``read_image`` drops; False where its header does not tell."""
    from PIL import Image  # comes with torchvision

    try:
        with Image.open(path) as image:
            return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False


def image_problem(path: str | os.PathLike[str], full: bool = False) -> str:
    """Return what is wrong with a file (missing, empty, cut off, no image, not to be read here), or an empty text.

    What the reader refuses has a problem; so has a file that ends early, which some versions of OpenCV fill with grey.
    A file whose header tells all is not decoded unless ``full`` asks for it.
    """
    header = None
    try:
        header = _header(path)
        if not full and header is not None and header.whole and header.stored[0] * header.stored[1] <= _SURELY_READ:
            return ""
        image = read_image(path)
    except DataError as error:
        reason = str(error)[len(f"{path}: ") :].rstrip(".")
        broken = header is not None and reason.startswith(_BROKEN)
        return _shortened(header, full) if broken else reason
    if (full or header is None or not header.whole) and not _loads(path):
        return _shortened(header, full)
    return "" if image.size else "has no pixels"


def _shortened(header: Optional[Header], full: bool) -> str:
    cut_off = not full and header is not None and not header.whole
    return "is cut off before its end" if cut_off else "cannot be decoded to its end"


def _header(path: str | os.PathLike[str]) -> Optional[Header]:
    try:
        with open(path, "rb") as file:
            return read_header(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _other_size(path: str | os.PathLike[str]) -> Optional[tuple[int, int]]:
    """Return (h, w) by Pillow's knowledge of other formats; None where it has none, or where the file may be turned."""
    from PIL import Image  # comes with torchvision

    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return None if turned else (image.size[1], image.size[0])
    # among them 16-bit colour TIFF, which OpenCV reads, and Pillow's own limit of pixels, which is not OpenCV's
    except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _loads(path: str | os.PathLike[str]) -> bool:
    """Whether Pillow finds all pixels of a file that OpenCV has read, or cannot say."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except (Image.UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    except (OSError, SyntaxError, ValueError):
        return False
    return True
