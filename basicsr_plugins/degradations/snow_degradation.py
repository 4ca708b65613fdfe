"""Snow: flakes of several sizes, nearer ones larger, softer and faster."""

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
)
from basicsr_plugins.degradations.blur_degradation import motion_kernel

__all__ = ["Snow", "snow_layer"]

#: Share of the flakes, radius (of ``radius``), softness in pixels and length of the fall, far to near.
_PLANES = ((0.75, 0.35, 0.4, 0.3), (0.2, 0.65, 0.7, 0.6), (0.05, 1.0, 1.1, 1.0))
_SHIFT = 4  # OpenCV draws circles on a grid of 1/16 pixel


def snow_layer(
    size: tuple[int, int], rng: np.random.Generator, density: float, radius: float, fall: float, angle: float
) -> np.ndarray:
    """Return a snow mask ``(h, w)`` in [0, 1].

    Args:
        size: (h, w).
        rng: Of place, size and brightness of each flake.
        density: Flakes per 1000 pixels.
        radius: Of the largest flakes, pixels.
        fall: How far the nearest flakes move during the exposure, pixels.
        angle: Of the fall, degrees from the vertical.
    """
    height, width = size
    layer = np.zeros(size, dtype=np.float32)
    seeds = rng.integers(1 << 53, size=len(_PLANES))
    for (share, scale, soft, speed), seed in zip(_PLANES, seeds):
        plane: Any = np.zeros(size, dtype=np.float32)
        count = max(1, round(density * share * height * width / 1000))
        # one row per flake, so that more flakes are the same ones and some more
        draws = np.random.Generator(np.random.SFC64(int(seed))).random((count, 4))
        columns, rows = draws[:, 0] * width, draws[:, 1] * height
        radii = scale * radius * (0.5 + 0.7 * draws[:, 2])
        unit = 1 << _SHIFT
        for x, y, r, shade in zip(columns * unit, rows * unit, np.maximum(radii, 0.5) * unit, 0.6 + 0.4 * draws[:, 3]):
            cv2.circle(plane, (round(x), round(y)), round(r), float(shade), -1, cv2.LINE_8, _SHIFT)
        if fall * speed >= 1.5:
            plane = cv2.filter2D(plane, -1, motion_kernel(fall * speed, 90.0 + angle, 0.0))
        plane = cv2.GaussianBlur(plane, (0, 0), soft)
        layer = np.maximum(layer, plane, out=layer)
    return np.clip(layer, 0.0, 1.0, out=layer)


@provides("degradation")
@dataclass
class Snow(Degradation):
    """Snow: y = x (1 - S) + S, with a mask S of three planes of flakes.

    Args:
        density: Flakes per 1000 pixels.
        radius: Of the largest flakes, pixels.
        fall: Movement of the nearest flakes during the exposure, pixels.
        angle: Of the fall, degrees from the vertical.
    """

    short = "snow"

    density: Range = option((1.0, 12.0), "flakes per 1000 pixels", check=in_order(0.0, 200.0))
    radius: Range = option((2.0, 4.5), "radius of the largest flakes, pixels", check=in_order(0.5, 64.0))
    fall: Range = option((0.0, 8.0), "movement during the exposure, pixels", check=in_order(0.0, 200.0))
    angle: Range = option((-40.0, 40.0), "degrees from the vertical", check=in_order(-90.0, 90.0))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {
            "density": pick(rng, self.density, severity),
            "radius": pick(rng, self.radius, severity),
            "fall": pick(rng, self.fall),
            "angle": pick(rng, self.angle),
            "field_seed": draw_seed(rng),
        }

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        names = ("density", "radius", "fall", "angle")
        layer = snow_layer(image.shape[:2], field_rng(params), *(params[name] for name in names))
        cover = layer[:, :, None]
        out = image * (1.0 - cover)
        out += cover
        return Degraded(np.clip(out, 0.0, 1.0, out=out), dict(params), {"snow": layer})
