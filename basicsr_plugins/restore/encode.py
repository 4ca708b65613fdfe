"""Write a restored photograph as its file was: format, depth, alpha, profile, EXIF, text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Optional, Union

import cv2
import numpy as np
from PIL import Image

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.restore.containers import into_jpeg, into_png, png16
from basicsr_plugins.restore.picture import Picture
from basicsr_plugins.restore.tiff import tiff

__all__ = ["WRITTEN", "encode", "output_format"]

#: The formats that are written, by the endings that ask for them.
WRITTEN = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".webp": "WEBP",
    ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".ppm": "PPM", ".pgm": "PPM", ".pnm": "PPM",
}  # fmt: skip


def output_format(source: str, source_format: str, target: str) -> str:
    """Return the format of an output: the source's own, or the one that another ending asks for.

    Args:
        source: The source's ending (which may lie: a JPEG may be called ``.png`` and then stays a JPEG).
        source_format: The source's format.
        target: The output's ending.

    Raises:
        OptionError: It is none that is written.
    """
    if source.lower() == target.lower() and source_format in WRITTEN.values():
        return source_format
    if target.lower() not in WRITTEN:
        raise OptionError(f"OUTPUT: {target or 'no ending'}: pictures are written as {', '.join(WRITTEN)}.")
    return WRITTEN[target.lower()]


def encode(
    picture: Picture, kind: str, quality: int = 95, where: Union[str, Path] = "the picture"
) -> tuple[bytes, list[str]]:
    """Return a file's bytes, and what the format could not keep.

    Args:
        picture: Pixels, and what was read beside them.
        kind: The format, a value of ``WRITTEN``.
        quality: Of JPEG and WebP.
        where: What to call it in messages.

    Raises:
        DataError: The format cannot hold it.
    """
    notes: list[str] = []
    pixels, alpha = picture.pixels, picture.alpha
    if alpha is not None and kind in ("JPEG", "PPM"):
        raise DataError(f"{where}: {kind} files hold no transparency; name an OUTPUT that ends in .png or .webp.")
    if pixels.dtype == np.uint16 and kind in ("JPEG", "WEBP", "BMP"):
        pixels, alpha = _to_8_bits(pixels), None if alpha is None else _to_8_bits(alpha)
        notes.append(f"16 bits became 8, because {kind} holds no more")
    same = picture.format == kind
    extras = picture.extras if same else []
    if kind == "TIFF":
        return tiff(pixels, alpha, picture.tags, None if same else picture.icc), notes
    if pixels.dtype == np.uint16:
        if kind == "PNG":
            return into_png(png16(_stacked(pixels, alpha)), extras, picture.icc, picture.exif), notes
        return _deep_netpbm(pixels), notes
    options: dict[str, Any] = dict(picture.saving) if same else {}
    if kind in ("JPEG", "WEBP"):
        options["quality"] = quality
    if kind == "JPEG" and not same:
        options["subsampling"] = 0 if quality >= 90 else 2
    if kind == "WEBP":
        options.update(exact=True, method=4)
        options.update({key: value for key, value in (("icc_profile", picture.icc), ("exif", picture.exif)) if value})
    data = _by_pillow(_stacked(pixels, alpha), kind, options, where)
    if kind == "JPEG":
        data = into_jpeg(data, extras, picture.icc, picture.exif)
    elif kind == "PNG":
        data = into_png(data, extras, picture.icc, picture.exif)
    return data, notes


def _by_pillow(pixels: np.ndarray, kind: str, options: dict[str, Any], where: Union[str, Path]) -> bytes:
    file = io.BytesIO()
    try:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, kind, **options)
    except (OSError, ValueError, KeyError) as error:
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise DataError(f"{where}: {size} pixels cannot be written as {kind} ({error}); try .png.") from error
    return file.getvalue()


def _stacked(pixels: np.ndarray, alpha: Optional[np.ndarray]) -> np.ndarray:
    return pixels if alpha is None else np.concatenate([pixels, alpha[:, :, None]], axis=2)


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _deep_netpbm(pixels: np.ndarray) -> bytes:
    grey = pixels.shape[2] == 1
    image = pixels[:, :, 0] if grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".pgm" if grey else ".ppm", image)[1].tobytes()
