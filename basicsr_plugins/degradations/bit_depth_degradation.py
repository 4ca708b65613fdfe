"""Fewer bits per value: banding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from basicsr_plugins.core.options import option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.degradations.base import Degradation, Degraded, Range, in_order, pick_int
from basicsr_plugins.degradations.jpeg_degradation import to_uint8

__all__ = ["BitDepth"]


@provides("degradation")
@dataclass
class BitDepth(Degradation):
    """Bit depth: the lower bits of each 8-bit value are dropped and the rest stretched to the full range.

    With 4 bits a value v of 0..255 becomes 17 floor(v / 16). 8 bits are allowed and only round.

    Args:
        bits: Bits that are kept.
    """

    short = "bit_depth"

    bits: Range = option((4, 7), "bits kept per value", check=in_order(1, 8))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {"bits": pick_int(rng, self.bits, severity, hard="low")}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        bits = int(params["bits"])
        levels = np.arange(256) >> (8 - bits)
        table = (levels / (2**bits - 1)).astype(np.float32)
        return Degraded(cv2.LUT(to_uint8(image), table), dict(params))
