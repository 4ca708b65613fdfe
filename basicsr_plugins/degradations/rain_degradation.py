"""Rain streaks: sparse noise, drawn out along one direction and added to the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional

import cv2
import numpy as np

from basicsr_plugins.core.errors import OptionError
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

__all__ = ["RAIN_PRESETS", "Rain", "rain_layer", "rain_mask", "streak_kernel"]

#: The ranges of the deraining studies' generator (CEM ``RainGenerator``): amount, widths, their probabilities, length,
#: angle in degrees.
RAIN_PRESETS: dict[str, dict[str, Any]] = {
    "small": {"amount": (0.002, 0.004), "width": [1, 3], "length": (25, 35), "angle": (-10, 10)},
    "medium": {
        "amount": (0.005, 0.007), "width": [3, 5, 7], "width_weights": [0.25, 0.5, 0.25], "length": (35, 45),
        "angle": (-30, 30),
    },
    "large": {"amount": (0.008, 0.010), "width": [7, 9], "length": (45, 55), "angle": (-60, 60)},
    "random": {"amount": (0.002, 0.010), "width": [1, 3, 5, 7, 9], "length": (25, 55), "angle": (-60, 60)},
}  # fmt: skip

_SHARPEN = np.array([[0, 0.1, 0], [0.1, 8, 0.1], [0, 0.1, 0]], dtype=np.float32)


def streak_kernel(length: int, width: int, angle: float, shrink: bool = False) -> np.ndarray:
    """Return the kernel (length, length) that draws a point out into a streak.

    Args:
        length: Side of the kernel and length of the streak, pixels.
        width: Odd side of the Gaussian that thickens it; 1 leaves it as it is.
        angle: Degrees, 0 vertical, counter-clockwise positive.
        shrink: Scale the line by ``1 - length / 100`` while it is turned, as the older generators do.
    """
    line = np.eye(length, dtype=np.float32)
    centre = ((length - 1) / 2, (length - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, angle - 45.0, 1.0 - length / 100.0 if shrink else 1.0)
    kernel = cv2.warpAffine(line, turn, (length, length))
    return cv2.GaussianBlur(kernel, (width, width), 0) if width > 1 else kernel


def rain_layer(size: tuple[int, int], rng: np.random.Generator, amount: float, kernel: np.ndarray) -> np.ndarray:
    """Return one rain layer ``(h, w)``, float32, whole grey levels of 0..255 divided by 255.

    Uniform noise of which only the top ``amount`` stays, a small sharpening, the streak kernel, and a stretch to the
    full range (so the layer's brightness depends on the canvas: synthesize at the size that is used).
    """
    noise = rng.random(size, dtype=np.float32)
    noise[noise < np.float32(1.0 - amount)] = 0.0
    drops = cv2.filter2D(noise, -1, _SHARPEN)
    drops = cv2.filter2D(drops, -1, kernel)
    # filter2D takes the frequency domain for large kernels and leaves rounding noise where there is no rain
    low, high = float(drops.min()), float(drops.max())
    if high - low <= 1e-6:
        return np.zeros(size, dtype=np.float32)
    drops -= np.float32(low)
    drops *= np.float32(255.0 / (high - low))
    return np.floor(drops + np.float32(1e-3), out=drops) / np.float32(255.0)


def rain_mask(layer: np.ndarray, threshold: float = 10 / 255) -> np.ndarray:
    """Return where it rains, bool ``(h, w)``: the layer, as it was added, is above ``threshold``."""
    return layer > np.float32(threshold)


@provides("degradation")
@dataclass
class Rain(Degradation):
    """Rain streaks, O = clip(B + beta R), as in the deraining-generalization studies (arXiv 2305.15134, 2502.12600).

    A preset fills the ranges that are left out; each can be given by itself.

    Args:
        preset: ``small`` | ``medium`` | ``large`` | ``random``.
        amount: Fraction of pixels that start a streak.
        width: Odd widths to choose from, pixels.
        width_weights: Their weights; equal if left out.
        length: Of a streak, pixels.
        angle: Degrees from the vertical.
        beta: Strength of the layer.
        shrink: The older generators' scaling of the streak (MiOIR, PromptGIP).

    Example:
        ``{type: Rain, preset: small, beta: [0.6, 1.0]}``
    """

    short = "rain"

    preset: Literal["small", "medium", "large", "random"] = option("random", "ranges that are not given", source="CEM")
    amount: Optional[Range] = option(None, "fraction of pixels that start a streak", check=in_order(0.0, 0.2))
    width: Optional[list[int]] = option(None, "odd widths of a streak, pixels")
    width_weights: Optional[list[float]] = option(None, "weights of the widths")
    length: Optional[Range] = option(None, "length of a streak, pixels", check=in_order(2, 301))
    angle: Optional[Range] = option(None, "degrees from the vertical", check=in_order(-90, 90))
    beta: Range = option((0.6, 1.0), "strength of the layer", source="CEM RainGenerator", check=in_order(0.0, 4.0))
    shrink: bool = option(False, "shorten long streaks as the older generators do")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ranges: dict[str, Any] = {"width_weights": None, **RAIN_PRESETS[self.preset]}
        if self.width is not None:
            self._ranges["width_weights"] = None
        for name in ("amount", "width", "width_weights", "length", "angle"):
            if getattr(self, name) is not None:
                self._ranges[name] = getattr(self, name)
        widths, weights = self._ranges["width"], self._ranges["width_weights"]
        if not widths or any(not 1 <= width <= 99 or width % 2 == 0 for width in widths):
            raise OptionError(f"width: expected odd widths up to 99 such as [1, 3, 5], got {widths!r}.")
        if weights is not None and (len(weights) != len(widths) or sum(weights) <= 0 or min(weights) < 0):
            raise OptionError(
                f"width_weights: expected one weight for each of the {len(widths)} widths, got {weights!r}."
            )

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        ranges = self._ranges
        widths, weights = ranges["width"], ranges["width_weights"]
        if severity is None:
            cumulative = np.cumsum(weights if weights is not None else np.ones(len(widths)))
            width = widths[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]
        else:
            width = sorted(widths)[pick_int(rng, (0, len(widths) - 1), severity)]
        return {
            "amount": pick(rng, ranges["amount"], severity),
            "width": int(width),
            "length": pick_int(rng, ranges["length"], severity),
            "angle": pick(rng, ranges["angle"]),
            "beta": pick(rng, self.beta, severity),
            "field_seed": draw_seed(rng),
        }

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        kernel = streak_kernel(int(params["length"]), int(params["width"]), params["angle"], self.shrink)
        layer = rain_layer(image.shape[:2], field_rng(params), params["amount"], kernel)
        layer *= np.float32(params["beta"])
        out = image + layer[:, :, None]
        return Degraded(np.minimum(out, 1.0, out=out), dict(params), {"rain": layer})
