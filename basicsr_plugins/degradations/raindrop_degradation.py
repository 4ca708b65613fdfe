"""Raindrops on the lens: each drop shows a small, upside-down, blurred view of the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    pick,
    pick_int,
)

__all__ = ["Raindrop"]


@provides("degradation")
@dataclass
class Raindrop(Degradation):
    """Raindrops: y = (1 - M) x + M D, where D is the scene seen through the drops.

    A drop is a strong lens, so it shows a wide field turned upside down and out of focus, brighter at its lower end and
    darker at its rim. A sketch of the optics, not a simulation; the ranges are ours.

    Args:
        count: Drops.
        radius: As a fraction of the image's shorter side.
    """

    short = "raindrop"

    count: Range = option((4, 30), "drops", check=in_order(1, 1000))
    radius: Range = option((0.03, 0.09), "fraction of the shorter side", check=in_order(0.005, 0.5))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {
            "count": pick_int(rng, self.count, severity),
            "radius": pick(rng, self.radius, severity),
            "field_seed": draw_seed(rng),
        }

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        height, width = image.shape[:2]
        largest = params["radius"] * min(height, width)
        view = cv2.GaussianBlur(image, (0, 0), max(1.0, largest / 6))
        through = image.copy()
        cover: Any = np.zeros((height, width), dtype=np.float32)
        draws = field_rng(params).random((int(params["count"]), 6))
        for x, y, size, stretch, lean, wobble in draws.tolist():
            self._drop(view, through, cover, x * width, y * height, largest * (0.4 + 0.6 * size), stretch, lean, wobble)
        cover = cv2.GaussianBlur(cover, (0, 0), 0.8)
        mask = cover[:, :, None]
        out = image + mask * (through - image)
        return Degraded(np.clip(out, 0.0, 1.0, out=out), dict(params), {"raindrop": cover})

    @staticmethod
    def _drop(
        view: np.ndarray, through: np.ndarray, cover: np.ndarray,
        x: float, y: float, radius: float, stretch: float, lean: float, wobble: float,
    ) -> None:  # fmt: skip
        """Paint one drop, in place, inside its bounding box."""
        height, width = cover.shape
        reach = int(np.ceil(radius * 1.7)) + 1
        top, bottom = max(0, int(y) - reach), min(height, int(y) + reach + 1)
        left, right = max(0, int(x) - reach), min(width, int(x) + reach + 1)
        if top >= bottom or left >= right:
            return
        rows = (np.arange(top, bottom, dtype=np.float32) - np.float32(y))[:, None] / np.float32(radius)
        columns = (np.arange(left, right, dtype=np.float32) - np.float32(x))[None, :] / np.float32(radius)
        columns = columns - np.float32(0.3 * (lean - 0.5)) * rows
        rows = rows / np.float32(1.0 + 0.45 * stretch)
        angle = np.arctan2(rows, columns)
        edge = 1.0 + 0.06 * np.sin(3 * angle + 6.28 * wobble) + 0.03 * np.sin(5 * angle + 9.0 * wobble)
        distance = np.sqrt(rows**2 + columns**2) / edge
        inside = distance < 1.0
        # a ray through the drop at distance r from its centre comes from the other side, several radii away
        field = np.float32(4.0 * radius)
        map_x = np.clip(np.float32(x) - columns * field * (0.4 + 0.6 * distance), 0, width - 1).astype(np.float32)
        map_y = np.clip(np.float32(y) - rows * field * (0.4 + 0.6 * distance), 0, height - 1).astype(np.float32)
        seen = cv2.remap(view, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        light = 1.0 + 0.18 * rows - 0.55 * np.clip(distance - 0.72, 0.0, None) / 0.28
        glint = np.exp(-((rows + 0.45) ** 2 + (columns + 0.35) ** 2) / 0.02)
        seen = seen * light[:, :, None] + 0.6 * glint[:, :, None]
        through[top:bottom, left:right][inside] = seen[inside]
        cover[top:bottom, left:right][inside] = 1.0
