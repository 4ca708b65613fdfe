"""Pictures about a restoration: before | after, and where which adapter works."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["compare", "weight_map"]

#: No side of a drawing is larger: it is looked at on a screen.
_LARGEST = 1600
_COLOURS = (
    (230, 75, 53),
    (77, 187, 213),
    (0, 160, 135),
    (240, 180, 30),
    (60, 84, 136),
    (145, 90, 180),
    (120, 120, 120),
)


def compare(before: np.ndarray, after: np.ndarray) -> Image.Image:
    """Return both pictures side by side with their names above; ``(h, w, 1 or 3)``, any depth, any two sizes."""
    height, width = _fitting(*after.shape[:2])
    sides = [_shown(pixels, height, width) for pixels in (before, after)]
    line, gap = 26, 6
    sheet = Image.new("RGB", (2 * width + gap, height + line), "white")
    draw = ImageDraw.Draw(sheet)
    for left, name, side in ((0, "before", sides[0]), (width + gap, "after", sides[1])):
        sheet.paste(side, (left, line))
        draw.text((left + 4, 4), name, fill="black", font=_font(16))
    return sheet


def weight_map(pixels: np.ndarray, weights: Tensor, names: Sequence[str]) -> Image.Image:
    """Return the picture in grey, each region in the colours of its adapters by their weights, and a legend.

    Args:
        pixels: ``(h, w, 1 or 3)``.
        weights: ``(K, rows, columns)``.
        names: The K adapters.
    """
    height, width = _fitting(*pixels.shape[:2])
    colours = np.array([_COLOURS[index % len(_COLOURS)] for index in range(len(names))], np.float32)
    shares = weights.numpy().astype(np.float32)
    tint = cv2.resize(np.einsum("krc,kt->rct", shares, colours), (width, height), interpolation=cv2.INTER_NEAREST)
    strength = cv2.resize(shares.sum(axis=0), (width, height), interpolation=cv2.INTER_NEAREST)[:, :, None].clip(0, 1)
    grey = np.asarray(_shown(pixels, height, width).convert("L").convert("RGB"), np.float32)
    mixed = Image.fromarray((grey * (1 - 0.6 * strength) + 0.6 * tint).clip(0, 255).astype(np.uint8))
    line = 24
    sheet = Image.new("RGB", (max(width, 240), height + line * len(names) + 6), "white")
    sheet.paste(mixed, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for index, name in enumerate(names):
        top = height + 4 + line * index
        draw.rectangle((4, top + 3, 20, top + 19), fill=_COLOURS[index % len(_COLOURS)])
        text = f"{name}: {100 * shares[index].mean():.0f} % on average, {100 * shares[index].max():.0f} % at most"
        draw.text((28, top + 2), text, fill="black", font=_font(15))
    return sheet


def _fitting(height: int, width: int) -> tuple[int, int]:
    factor = min(1.0, _LARGEST / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _shown(pixels: np.ndarray, height: int, width: int) -> Image.Image:
    smaller = pixels.shape[0] > height
    sized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)
    if sized.dtype == np.uint16:
        sized = (sized // 256).astype(np.uint8)
    return Image.fromarray(sized).convert("RGB")


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()
