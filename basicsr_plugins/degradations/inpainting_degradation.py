"""Strokes to paint over: straight lines across the picture, all white or all black."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from basicsr_plugins.core.options import option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.degradations.base import (
    Degradation,
    Degraded,
    Range,
    draw_seed,
    field_rng,
    in_order,
    pick_int,
)

__all__ = ["InpaintingStrokes", "stroke_mask"]


def stroke_mask(size: tuple[int, int], rng: np.random.Generator, count: int, thickness: int) -> np.ndarray:
    """Return a mask ``(h, w)`` of 0 and 1: ``count`` lines between random points."""
    mask = np.zeros(size, dtype=np.uint8)
    ends = rng.random((count, 4)) * np.array([size[1], size[0], size[1], size[0]])  # row by row: more lines, same start
    for x0, y0, x1, y1 in ends.astype(int).tolist():
        cv2.line(mask, (x0, y0), (x1, y1), 1, thickness)
    return mask.astype(np.float32)


@provides("degradation")
@dataclass
class InpaintingStrokes(Degradation):
    """Strokes: 5 to 10 straight lines of 5 to 10 pixels, all white or all black (DCPT's ten tasks).

    Args:
        count: Lines.
        thickness: Of every line, pixels.
        colour: ``white``, ``black`` or ``either`` with equal chance.
    """

    short = "inpainting"

    count: Range = option((5, 10), "lines", source="DCPT", check=in_order(1, 1000))
    thickness: Range = option((5, 10), "pixels", source="DCPT", check=in_order(1, 255))
    colour: Literal["white", "black", "either"] = option("either", "of the lines", source="DCPT")

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        white = rng.random() < 0.5 if self.colour == "either" else self.colour == "white"
        return {
            "count": pick_int(rng, self.count, severity),
            "thickness": pick_int(rng, self.thickness, severity),
            "colour": "white" if white else "black",
            "field_seed": draw_seed(rng),
        }

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        mask = stroke_mask(image.shape[:2], field_rng(params), int(params["count"]), int(params["thickness"]))
        out = image.copy()
        out[mask > 0] = 1.0 if params["colour"] == "white" else 0.0
        return Degraded(out, dict(params), {"stroke": mask})
