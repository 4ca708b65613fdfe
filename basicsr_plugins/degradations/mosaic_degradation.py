"""Bayer mosaic: one colour per pixel, and what a simple demosaicing makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from basicsr_plugins.core.options import option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.degradations.base import Degradation, Degraded
from basicsr_plugins.degradations.jpeg_degradation import to_uint8

__all__ = ["Mosaic", "bayer_mosaic"]

Pattern = Literal["RGGB", "BGGR", "GRBG", "GBRG"]
# OpenCV names a pattern by its second row, second and third pixel; output is RGB
_EDGE_AWARE = {
    "RGGB": cv2.COLOR_BayerBG2RGB_EA,
    "BGGR": cv2.COLOR_BayerRG2RGB_EA,
    "GRBG": cv2.COLOR_BayerGB2RGB_EA,
    "GBRG": cv2.COLOR_BayerGR2RGB_EA,
}
_BILINEAR = {
    "RGGB": cv2.COLOR_BayerBG2RGB,
    "BGGR": cv2.COLOR_BayerRG2RGB,
    "GRBG": cv2.COLOR_BayerGB2RGB,
    "GBRG": cv2.COLOR_BayerGR2RGB,
}


def bayer_mosaic(image: np.ndarray, pattern: str = "RGGB") -> np.ndarray:
    """Return the colour-filter array ``(h, w)`` of an RGB image ``(h, w, 3)``, any dtype."""
    mosaic = np.empty(image.shape[:2], dtype=image.dtype)
    for position, colour in enumerate(pattern):
        row, column = divmod(position, 2)
        mosaic[row::2, column::2] = image[row::2, column::2, "RGB".index(colour)]
    return mosaic


@provides("degradation")
@dataclass
class Mosaic(Degradation):
    """Bayer mosaic of the 8-bit image.

    DCPT's ten tasks demosaic with OpenCV's edge-aware method; the published flag swaps red and blue, ours does not.
    A severity s below 1 mixes: x + s (y - x).

    Args:
        pattern: Colours of the upper left 2 x 2 pixels, row by row.
        method: ``edge_aware``, ``bilinear``, or ``raw``: each pixel keeps its one colour, the other two are black.
    """

    short = "mosaic"

    pattern: Pattern = option("RGGB", "colour filter of the sensor", source="DCPT")
    method: Literal["edge_aware", "bilinear", "raw"] = option("edge_aware", "demosaicing", source="DCPT")

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        values = to_uint8(image)
        if self.method == "raw":
            out = np.zeros_like(image)
            for position, colour in enumerate(self.pattern):
                row, column = divmod(position, 2)
                channel = "RGB".index(colour)
                out[row::2, column::2, channel] = image[row::2, column::2, channel]
        else:
            height, width = values.shape[:2]
            # an even canvas with a mirrored rim: OpenCV copies the two outer rows, which would show at crop borders
            values = cv2.copyMakeBorder(values, 2, 2 + height % 2, 2, 2 + width % 2, cv2.BORDER_REFLECT_101)
            flags = _EDGE_AWARE if self.method == "edge_aware" else _BILINEAR
            full = cv2.cvtColor(bayer_mosaic(values, self.pattern), flags[self.pattern])
            full = full[2 : 2 + height, 2 : 2 + width]
            out = np.divide(full, np.float32(255.0), dtype=np.float32)
        severity = params.get("severity", 1.0)
        if severity < 1.0:
            out = np.clip(image + np.float32(severity) * (out - image), 0.0, 1.0)
        return Degraded(out, dict(params))
