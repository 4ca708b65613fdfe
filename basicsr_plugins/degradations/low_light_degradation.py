"""Low light: darker, with more contrast and the noise of a raised gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from basicsr_plugins.degradations.base import Degradation, Degraded, Range, draw_seed, field_rng, in_order, pick
from basicsr_plugins.options import option
from basicsr_plugins.registration import provides

__all__ = ["LowLight"]


@provides("degradation")
@dataclass
class LowLight(Degradation):
    """Low light: y = clip(b x^gamma + N(0, s^2)).

    Args:
        gamma: Exponent (OneRestore's illumination exponent is 2 to 3).
        brightness: Factor b.
        noise: Deviation s, on the [0, 1] scale (OneRestore: 0.03 to 0.08).
    """

    short = "low_light"

    gamma: Range = option((1.5, 4.0), "exponent", check=in_order(1.0, 10.0))
    brightness: Range = option((0.3, 1.0), "factor after the exponent", check=in_order(0.0, 1.0))
    noise: Range = option((0.005, 0.08), "deviation of the noise, [0, 1] scale", check=in_order(0.0, 1.0))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {
            "gamma": pick(rng, self.gamma, severity),
            "brightness": pick(rng, self.brightness, severity, hard="low"),
            "noise": pick(rng, self.noise, severity),
            "field_seed": draw_seed(rng),
        }

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        out = cv2.pow(np.maximum(image, 0.0), params["gamma"])
        out *= np.float32(params["brightness"])
        noise = field_rng(params).standard_normal(image.shape, dtype=np.float32)
        noise *= np.float32(params["noise"])
        out += noise
        return Degraded(np.clip(out, 0.0, 1.0, out=out), dict(params))
