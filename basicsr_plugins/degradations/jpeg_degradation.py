"""JPEG compression, by OpenCV's encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import cv2
import numpy as np

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.degradations.base import Degradation, Degraded, Range, in_order, pick_int

__all__ = ["JPEG"]


@provides("degradation")
@dataclass
class JPEG(Degradation):
    """JPEG: the image is rounded to 8 bits, encoded and decoded.

    Args:
        quality: OpenCV's quality, whole numbers.
        qualities: Fixed ones to choose from instead (DCPT's ten tasks: 10, 20, 30, 40, 50).
    """

    short = "jpeg"

    quality: Range = option((10, 50), "quality of the encoder", check=in_order(1, 100))
    qualities: Optional[list[int]] = option(None, "qualities to choose from instead of the range")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qualities is not None and not all(1 <= quality <= 100 for quality in self.qualities or [0]):
            raise OptionError(f"qualities: expected whole numbers from 1 to 100, got {self.qualities!r}.")

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        if self.qualities is not None:
            levels = sorted(self.qualities)
            return {"quality": levels[pick_int(rng, (0, len(levels) - 1), severity, hard="low")]}
        return {"quality": pick_int(rng, self.quality, severity, hard="low")}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        bytes_ = cv2.cvtColor(to_uint8(image), cv2.COLOR_RGB2BGR)
        _, encoded = cv2.imencode(".jpg", bytes_, [cv2.IMWRITE_JPEG_QUALITY, int(params["quality"])])
        decoded = cv2.cvtColor(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
        return Degraded(np.divide(decoded, np.float32(255.0), dtype=np.float32), dict(params))


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Return an image in [0, 1] as uint8, rounded."""
    return cv2.convertScaleAbs(np.clip(image, 0.0, 1.0), alpha=255.0)
