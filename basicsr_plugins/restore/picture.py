"""Read a photograph with everything that has to go out again: depth, grey, alpha, profile, EXIF, text."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

import cv2
import numpy as np
import torch
from PIL import Image, ImageCms, JpegImagePlugin

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.restore.containers import jpeg_extras, png_extras
from basicsr_plugins.restore.memory import free_memory
from basicsr_plugins.restore.orientation import as_upright, as_upright_xmp, stored_orientation, upright
from basicsr_plugins.restore.tiff import described_tags

__all__ = ["Picture", "open_image", "read_picture"]

_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
_PNG_GREY_ALPHA = 4
#: Pillow keeps four bytes a pixel, the restored copy and the encoder theirs.
_BYTES_PER_PIXEL = 16


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    Args:
        pixels: ``(h, w, 1 or 3)``, uint8 or uint16, grey or RGB, upright.
        alpha: ``(h, w)`` of the same type, or None.
        format: Pillow's name of the file's format (``JPEG``).
        icc: The colour profile.
        exif: The EXIF block, its orientation set to 1.
        extras: Segments or chunks of the same format that go out as they came in.
        tags: What a TIFF file says about the picture.
        saving: How the file was compressed, as arguments of Pillow's ``save``.
        notes: What could not be kept, one sentence each.
    """

    pixels: np.ndarray
    alpha: Optional[np.ndarray]
    format: str
    icc: Optional[bytes] = None
    exif: Optional[bytes] = None
    extras: list[bytes] = field(default_factory=list)
    tags: dict[int, tuple[Any, Optional[int]]] = field(default_factory=dict)
    saving: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_picture(path: Union[str, Path]) -> Picture:
    """Read a file.

    Raises:
        DataError: It cannot be read, is broken, holds several pictures, or pixels that are neither 8 nor 16 bits deep.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    turned = stored_orientation(data)
    data = as_upright(data) if turned != 1 else data  # of a TIFF: some decoders turn it by themselves, some do not
    with open_image(path, data) as image:
        kind = "JPEG" if image.format == "MPO" else str(image.format)  # a JPEG with previews behind it
        try:
            _refuse(path, image, kind, data)
            image.load()
            orientation = turned if kind == "TIFF" else image.getexif().get(_ORIENTATION, 1)
            pixels, notes, with_profile = _decoded(path, image, data)
            described = _described(image, kind, data, orientation, with_profile)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # decoders raise whatever their format makes them
            raise DataError(f"{path}: is broken or cut off ({_short(error)}).") from error
    pixels = upright(pixels, orientation)
    colours = pixels.shape[2] - (pixels.shape[2] + 1) % 2
    alpha = np.ascontiguousarray(pixels[:, :, -1]) if colours < pixels.shape[2] else None
    return Picture(np.ascontiguousarray(pixels[:, :, :colours]), alpha, kind, notes=tuple(notes), **described)


@contextlib.contextmanager
def open_image(path: Union[str, Path], data: Optional[bytes] = None) -> Iterator[Image.Image]:
    """Open a file (or its bytes) of any size with Pillow, which by itself refuses more than 179 megapixels.

    Raises:
        DataError: It is empty or no picture.
    """
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        if data is not None and not data:
            raise DataError(f"{path}: the file is empty (0 bytes).")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, which goes out as it came in
            try:
                image = Image.open(path if data is None else io.BytesIO(data))
            except Exception as error:
                if data is not None and data[:2] in (b"II", b"MM"):
                    what = "a broken TIFF file, or of a kind that is not read (8 or 16 bits, grey or RGB, are)"
                else:
                    what = "no picture that can be read (it is broken, or not what its name says)"
                raise DataError(f"{path}: is {what}.") from error
            with image:
                yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _refuse(path: Union[str, Path], image: Image.Image, kind: str, data: bytes) -> None:
    if kind == "TIFF" and data[:4] in (b"II+\x00", b"MM\x00+"):
        raise DataError(f"{path}: a BigTIFF file is not read here; save it as plain TIFF.")
    frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
    if frames > 1:
        raise DataError(f"{path}: holds {frames} pictures (an animation, or pages); only single ones are restored.")
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F" or 3 in np.ravel(tags.get(339, 1)):
        raise DataError(f"{path}: its pixels are floating point numbers without a fixed white; save it with 16 bits.")
    if kind == "TIFF" and tags.get(262) == 0 and _is_deep(image, data):
        raise DataError(f"{path}: a 16-bit TIFF in which 0 is white; save it with 0 as black.")
    if _is_deep(image, data) and "transparency" in image.info:
        raise DataError(f"{path}: 16 bits with one transparent colour; save it with an alpha channel.")
    need, free = image.width * image.height * _BYTES_PER_PIXEL, free_memory(torch.device("cpu"))
    if free is not None and need > free:
        raise DataError(
            f"{path}: {image.width} x {image.height} pixels need {need / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} GiB are free."
        )


def _is_deep(image: Image.Image, data: bytes) -> bool:
    if image.mode.startswith("I"):
        return True
    if image.format == "TIFF":
        return 16 in np.ravel(getattr(image, "tag_v2", {}).get(258, 8))
    return image.format == "PNG" and data[24:25] == b"\x10"


def _decoded(path: Union[str, Path], image: Image.Image, data: bytes) -> tuple[np.ndarray, list[str], bool]:
    """Return ``(h, w, 1 to 4)`` as stored, what was changed, and whether the file's profile still holds."""
    if _is_deep(image, data) or image.format == "PPM":
        deep = _decoded_deep(path, image, data)
        if deep is not None:
            return deep, [], True
    mode, notes = image.mode, []
    if "transparency" in image.info and mode in ("1", "L", "P", "RGB"):
        wanted = "LA" if mode in ("1", "L") else "RGBA"
    else:
        wanted = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}.get(mode, mode)
    if mode in ("1", "P", "PA"):
        notes.append("its few colours became all 256 shades" if mode == "1" else "its palette became full colours")
    if wanted in ("L", "LA", "RGB", "RGBA"):
        array = np.asarray(image if wanted == mode else image.convert(wanted))
        return array.reshape(*array.shape[:2], -1), notes, True
    return np.asarray(_to_rgb(image)), [f"{mode} became RGB"], False


def _decoded_deep(path: Union[str, Path], image: Image.Image, data: bytes) -> Optional[np.ndarray]:
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: this kind of {image.format} file with 16 bits cannot be decoded.")
    if array.dtype == np.uint8:
        return None
    if array.ndim == 2:
        return array[:, :, None]
    if image.mode in ("LA", "La") or (image.format == "PNG" and data[25] == _PNG_GREY_ALPHA):
        return array[:, :, [0, -1]]
    if image.mode in _GREY:
        return array[:, :, :1]
    return cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA if array.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert CMYK and the like, through the file's profile where it has one."""
    profile = image.info.get("icc_profile")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")


def _described(image: Image.Image, kind: str, data: bytes, orientation: int, with_profile: bool) -> dict[str, Any]:
    described: dict[str, Any] = {}
    if with_profile and image.info.get("icc_profile"):
        described["icc"] = image.info["icc_profile"]
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and exif:
        described["exif"] = as_upright(exif)
    if kind == "JPEG":
        described["extras"] = jpeg_extras(data, with_profile)
        sampling = JpegImagePlugin.get_sampling(image)
        described["saving"] = {"progressive": bool(image.info.get("progressive"))}
        if sampling >= 0 and image.mode == "RGB":
            described["saving"]["subsampling"] = sampling
    elif kind == "PNG":
        described["extras"] = png_extras(data, drop_profile=not with_profile, orientation=orientation)
    elif kind == "WEBP":
        described["saving"] = {"lossless": _is_lossless(data)}
        if image.info.get("xmp"):
            described["saving"]["xmp"] = as_upright_xmp(image.info["xmp"])
    elif kind == "TIFF":
        described["tags"] = described_tags(image, with_profile)
    elif kind == "BMP" and "dpi" in image.info:
        described["saving"] = {"dpi": image.info["dpi"]}
    return described


def _is_lossless(data: bytes) -> bool:
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        at += 8 + size + size % 2
    return False


def _short(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
