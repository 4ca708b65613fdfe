"""Haze: the atmospheric scattering equation over a depth map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.core.options import fraction, option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.degradations.base import Degradation, Degraded, Range, draw_seed, field_rng, in_order, pick

__all__ = ["Haze", "smooth_depth"]


def smooth_depth(size: tuple[int, int], rng: np.random.Generator, cells: int = 4) -> np.ndarray:
    """Return a synthetic depth map ``(h, w)`` in [0, 1]: far at the top, near at the bottom, gently uneven.

    Args:
        size: (h, w).
        rng: Of the uneven part.
        cells: Grid of the uneven part, cells per side.
    """
    height, width = size
    coarse = rng.random((cells + 1, cells + 1), dtype=np.float32)
    uneven = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    slope = np.linspace(1.0, 0.0, height, dtype=np.float32)[:, None]
    depth = np.float32(0.6) * slope + np.float32(0.4) * uneven
    low, high = float(depth.min()), float(depth.max())
    return (depth - np.float32(low)) / np.float32(max(high - low, 1e-6))


@provides("degradation")
@dataclass
class Haze(Degradation):
    """Haze: y = x t + A (1 - t), t = exp(-beta d), with the depth map d in [0, 1] or a smooth synthetic one.

    Args:
        beta: Scattering coefficient (OneRestore uses 1 to 2).
        airlight: Colour A of the haze (OneRestore uses 0.6 to 0.9).
        cells: Unevenness of the synthetic depth, grid cells per side.
        smooth: Side of a box filter over the depth, pixels (CDD-11: 22).
        farthest: Depths beyond this count as this (CDD-11: 0.7).
    """

    short = "haze"
    uses_depth = True

    beta: Range = option((0.5, 2.5), "scattering coefficient", check=in_order(0.0, 20.0))
    airlight: Range = option((0.6, 1.0), "colour of the haze", check=in_order(0.0, 1.0))
    cells: int = option(4, "grid cells per side of the synthetic depth", check=in_order(1, 256))

    smooth: int = option(1, "side of the box filter over the depth, pixels", check=in_order(1, 999))
    farthest: float = option(1.0, "depths are cut off here", check=fraction)

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {
            "beta": pick(rng, self.beta, severity),
            "airlight": pick(rng, self.airlight),
            "field_seed": draw_seed(rng),
        }

    def apply(self, image: np.ndarray, params: Mapping[str, Any], depth: np.ndarray | None = None) -> Degraded:
        size = image.shape[:2]
        if depth is None:
            depth = smooth_depth(size, field_rng(params), self.cells)
        elif depth.shape != size:
            raise DataError(f"the depth map is {depth.shape}, the image {size}: both need the same height and width.")
        if self.smooth > 1:
            depth = cv2.blur(depth.astype(np.float32), (self.smooth, self.smooth), borderType=cv2.BORDER_REFLECT_101)
        if self.farthest < 1.0:
            depth = np.minimum(depth, np.float32(self.farthest))
        transmission = cv2.exp(depth.astype(np.float32) * np.float32(-params["beta"]))
        airlight = np.float32(params["airlight"])
        out = image - airlight
        out *= transmission[:, :, None]
        out += airlight
        return Degraded(np.clip(out, 0.0, 1.0, out=out), dict(params), {"transmission": transmission, "depth": depth})
