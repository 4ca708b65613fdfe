"""Rain removal and background error as metrics of an option file."""

from __future__ import annotations

from typing import Any, Literal, Optional

import numpy as np

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.core.registration import provides
from basicsr_plugins.metrics.deraining import DerainingErrors, decoupled_errors

__all__ = ["calculate_background_error", "calculate_rain_removal"]


@provides("metric")
def calculate_rain_removal(
    img: np.ndarray,
    img2: np.ndarray,
    img_lq: Optional[np.ndarray] = None,
    rain_mask: Optional[np.ndarray] = None,
    threshold: float = 10.0,
    min_share: float = 0.01,
    crop_border: int = 0,
    form: Literal["error", "ratio", "residual"] = "error",
) -> float:
    """Return how much rain was removed from one image: E_R on the 0..255 scale (larger: more was changed).

    Validated by our models, which hand over the rainy input; averaged over images like PSNR. Images in which rain or
    background fills less than ``min_share`` give NaN, which our models leave out of the average.

    Args:
        img: Restored image, uint8 BGR ``(h, w, 3)``.
        img2: Clean image.
        img_lq: Rainy input.
        rain_mask: Where it rains ``(h, w)``; left out, where input and clean image differ by more than ``threshold``.
        threshold: On the 0..255 scale.
        min_share: See above.
        crop_border: Pixels left out at each border.
        form: ``error`` is E_R, ``ratio`` E_R over that of the clean image (1: all removed), ``residual`` what remains
            where it rains.

    Example::

        val:
          metrics:
            removal: {type: calculate_rain_removal, form: ratio}
            background: {type: calculate_background_error, better: lower}
    """
    errors = _errors(img, img2, img_lq, rain_mask, threshold, min_share, crop_border)
    if form == "ratio":
        return errors.removal_ratio
    return 255.0 * (errors.removal if form == "error" else errors.residual)


@provides("metric")
def calculate_background_error(
    img: np.ndarray,
    img2: np.ndarray,
    img_lq: Optional[np.ndarray] = None,
    rain_mask: Optional[np.ndarray] = None,
    threshold: float = 10.0,
    min_share: float = 0.01,
    crop_border: int = 0,
) -> float:
    """Return how far the background of one image is from the clean one: E_B on the 0..255 scale (lower is better).

    Arguments as in ``calculate_rain_removal``.
    """
    return 255.0 * _errors(img, img2, img_lq, rain_mask, threshold, min_share, crop_border).background


calculate_rain_removal.higher_is_better = True  # type: ignore[attr-defined]
# what remains of the rain is the one form that is better when lower
calculate_rain_removal.higher_is_better_with = lambda options: options.get("form") != "residual"  # type: ignore[attr-defined]
calculate_background_error.higher_is_better = False  # type: ignore[attr-defined]


def _errors(
    img: np.ndarray, img2: np.ndarray, img_lq: Any, rain_mask: Any, threshold: float, min_share: float, border: int
) -> DerainingErrors:
    if img_lq is None and rain_mask is None:
        raise DataError(
            "the deraining metrics compare with the rainy input, which stock SRModel does not hand to metrics: set "
            "model_type to RestorationModel, or call the function with img_lq."
        )
    if img_lq is None:
        raise DataError("the deraining metrics need the rainy input (img_lq) besides the mask.")
    if not img.shape == img2.shape == img_lq.shape:
        raise DataError(f"shapes differ: output {img.shape}, clean {img2.shape}, input {img_lq.shape}.")
    output, rainy, clean = (_inner(image, border) / 255.0 for image in (img, img_lq, img2))
    mask = None if rain_mask is None else _inner(np.asarray(rain_mask), border)
    return decoupled_errors(output, rainy, clean, mask=mask, threshold=threshold / 255.0, min_share=min_share)


def _inner(image: np.ndarray, border: int) -> np.ndarray:
    return image[border:-border, border:-border] if border else image
