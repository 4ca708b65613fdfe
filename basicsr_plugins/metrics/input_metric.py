"""PSNR and SSIM of the degraded input: what a method starts from, in the same table."""

from __future__ import annotations

from typing import Optional

import numpy as np

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.core.registration import provides

__all__ = ["calculate_input_psnr", "calculate_input_ssim"]


@provides("metric")
def calculate_input_psnr(
    img: np.ndarray,
    img2: np.ndarray,
    img_lq: Optional[np.ndarray] = None,
    crop_border: int = 0,
    test_y_channel: bool = False,
) -> float:
    """Return the PSNR of the degraded input, in dB.

    Args:
        img: Restored image; not used.
        img2: Clean image, uint8 BGR ``(h, w, 3)``.
        img_lq: Degraded input of the same size; our models hand it over.
        crop_border: Pixels left out at each border.
        test_y_channel: Measure on the luma channel.

    Raises:
        DataError: The model that validates does not hand over its input.

    Example::

        val:
          metrics:
            psnr_input: {type: calculate_input_psnr}
    """
    from basicsr.metrics import calculate_psnr

    return calculate_psnr(_needed(img_lq), img2, crop_border, test_y_channel=test_y_channel)


@provides("metric")
def calculate_input_ssim(
    img: np.ndarray,
    img2: np.ndarray,
    img_lq: Optional[np.ndarray] = None,
    crop_border: int = 0,
    test_y_channel: bool = False,
) -> float:
    """Return the SSIM of the degraded input; arguments as in ``calculate_input_psnr``."""
    from basicsr.metrics import calculate_ssim

    return calculate_ssim(_needed(img_lq), img2, crop_border, test_y_channel=test_y_channel)


calculate_input_psnr.higher_is_better = True  # type: ignore[attr-defined]
calculate_input_ssim.higher_is_better = True  # type: ignore[attr-defined]


def _needed(img_lq: Optional[np.ndarray]) -> np.ndarray:
    if img_lq is None:
        raise DataError(
            "calculate_input_*: the model does not hand over its input; use one of basicsr_plugins' models."
        )
    return img_lq
