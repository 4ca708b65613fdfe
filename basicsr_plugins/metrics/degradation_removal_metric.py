"""How much of a degradation that is everywhere (noise, blur) is gone: the analogue of E_R without a mask."""

from __future__ import annotations

from typing import Optional

import numpy as np

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.core.registration import provides

__all__ = ["calculate_degradation_removal", "degradation_removal"]


def degradation_removal(output: np.ndarray, degraded: np.ndarray, clean: np.ndarray) -> float:
    """Return 1 - <Y - B, O - B> / <O - B, O - B>: 0 for the identity, 1 for a perfect network; NaN if O equals B.

    Args:
        output: Y, any shape, range [0, 1]; clipped to it first.
        degraded: O, the same shape.
        clean: B, the same shape.
    """
    clean = clean.astype(np.float64)
    wrong = degraded - clean
    power = float((wrong**2).sum())
    return float(1 - ((np.clip(output, 0, 1) - clean) * wrong).sum() / power) if power else float("nan")


@provides("metric")
def calculate_degradation_removal(
    img: np.ndarray, img2: np.ndarray, img_lq: Optional[np.ndarray] = None, crop_border: int = 0
) -> float:
    """Return the share of noise, blur or any other degradation that is gone from one image (arXiv 2502.12600).

    Args:
        img: Restored image, uint8 (h, w, 3).
        img2: Clean image.
        img_lq: Degraded input, which our models hand over.
        crop_border: Pixels left out at each border.

    Raises:
        DataError: There is no input, or the shapes differ.

    Example::

        val:
          metrics:
            removal: {type: calculate_degradation_removal}
    """
    if img_lq is None:
        raise DataError(
            "calculate_degradation_removal compares with the input, which stock SRModel does not hand to metrics: set "
            "model_type to RestorationModel, or call the function with img_lq."
        )
    if not img.shape == img2.shape == img_lq.shape:
        raise DataError(f"shapes differ: output {img.shape}, clean {img2.shape}, input {img_lq.shape}.")
    inner = slice(crop_border, -crop_border or None)
    return degradation_removal(*(image[inner, inner].astype(np.float64) / 255 for image in (img, img_lq, img2)))


calculate_degradation_removal.higher_is_better = True  # type: ignore[attr-defined]
