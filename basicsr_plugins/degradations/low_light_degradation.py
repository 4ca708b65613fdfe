"""Low light: darker, with the noise of a raised gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from basicsr_plugins.core.options import option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.degradations.base import Degradation, Degraded, Range, draw_seed, field_rng, in_order, pick
from basicsr_plugins.degradations.fields import scaled_normal

__all__ = ["LowLight", "guided_filter"]


def guided_filter(guide: np.ndarray, image: np.ndarray, side: int, eps: float) -> np.ndarray:
    """Return ``image`` smoothed with the edges of ``guide`` kept (He et al., ECCV 2010); both ``(h, w)``.

    Args:
        guide: Grey image whose edges stay.
        image: What is smoothed.
        side: Of the box, pixels.
        eps: Regularisation; larger is smoother.
    """

    def box(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT_101)

    mean_guide, mean_image = box(guide), box(image)
    slope = (box(guide * image) - mean_guide * mean_image) / (box(guide * guide) - mean_guide**2 + np.float32(eps))
    return box(slope) * guide + box(mean_image - slope * mean_guide)


@provides("degradation")
@dataclass
class LowLight(Degradation):
    """Low light: y = clip(b x^gamma + N(0, s^2)), or OneRestore's change of the illumination.

    Args:
        model: ``gamma`` darkens each value; ``retinex`` divides by a smoothed light map L and multiplies by L^gamma,
            which keeps the colours (OneRestore's CDD-11).
        gamma: Exponent (CDD-11: 2 to 3).
        brightness: Factor b, of ``gamma`` only.
        noise: Deviation s, on the [0, 1] scale (CDD-11: 0.03 to 0.08).
    """

    short = "low_light"

    model: Literal["gamma", "retinex"] = option("gamma", "how the light goes")
    gamma: Range = option((1.5, 3.0), "exponent", check=in_order(1.0, 10.0))
    brightness: Range = option((0.4, 1.0), "factor after the exponent", check=in_order(0.0, 1.0))
    noise: Range = option((0.005, 0.05), "deviation of the noise, [0, 1] scale", check=in_order(0.0, 1.0))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {
            "gamma": pick(rng, self.gamma, severity),
            "brightness": pick(rng, self.brightness, severity, hard="low"),
            "noise": pick(rng, self.noise, severity),
            "field_seed": draw_seed(rng),
        }

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        if self.model == "retinex":
            light = cv2.max(cv2.max(image[:, :, 0], image[:, :, 1]), image[:, :, 2])
            light = guided_filter(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), light, side=3, eps=0.01)
            light = np.clip(light, 1e-3, 1.0)
            out = image * cv2.pow(light, params["gamma"] - 1.0)[:, :, None]
        else:
            out = cv2.pow(np.maximum(image, 0.0), params["gamma"])
            out *= np.float32(params["brightness"])
        out += scaled_normal(field_rng(params), image.shape, params["noise"])
        return Degraded(np.clip(out, 0.0, 1.0, out=out), dict(params))
