"""Take a restored image apart: how much rain is gone, how well is the background kept? (arXiv 2305.15134)

B is the clean image, O the rainy one, Y the output, M the mask of rain. Overall PSNR mixes two things that these
numbers keep apart:

    E_R = sqrt(mean over M = 1 of (Y - O)^2)      larger: more rain was changed
    E_B = sqrt(mean over M = 0 of (Y - B)^2)      smaller: the background was kept

The identity network has E_R = E_B = 0, a perfect one E_R = E_R* = sqrt(mean over M = 1 of (B - O)^2) and E_B = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from basicsr_plugins.errors import DataError

__all__ = ["LEAST_SHARE", "MASK_THRESHOLD", "RainScores", "degradation_removal", "pair_mask", "rain_scores"]

#: A pixel is rain where the layer exceeds this (range [0, 1]); ours, the papers do not say.
MASK_THRESHOLD = 10 / 255
#: An image is skipped where less than this share of its pixels is rain, or background.
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class RainScores:
    """The decoupled numbers of one image, range [0, 1].

    Attributes:
        e_r: Change of the rainy pixels; larger is more removal, or more damage (see ``residual``).
        e_b: Error of the background; 0 is perfect.
        e_r_oracle: E_R of a perfect network.
        removal_ratio: ``e_r / e_r_oracle``.
        residual: Error that is left in the rainy pixels; 0 is perfect, and guards ``e_r`` against rewarding damage.
    """

    e_r: float
    e_b: float
    e_r_oracle: float
    removal_ratio: float
    residual: float


def pair_mask(rainy: np.ndarray, clean: np.ndarray, threshold: float = MASK_THRESHOLD) -> np.ndarray:
    """Return where a pair without a known layer differs, bool (h, w): max over channels of |O - B| > threshold.

    Args:
        rainy: O, (h, w, 3), range [0, 1].
        clean: B, the same shape.
        threshold: In the images' range.
    """
    return np.abs(rainy - clean).max(-1) > threshold


def rain_scores(
    output: np.ndarray, rainy: np.ndarray, clean: np.ndarray, mask: np.ndarray, least_share: float = LEAST_SHARE
) -> RainScores | None:
    """Return the decoupled numbers of one image, or None where it has hardly any rain or hardly any background.

    Args:
        output: Y, (h, w, 3), range [0, 1]; clipped to it first.
        rainy: O, the same shape.
        clean: B, the same shape.
        mask: M, (h, w), true where it rains.
        least_share: Least share of rain, and of background.

    Raises:
        DataError: The shapes differ.
    """
    for name, image in (("output", output), ("rainy", rainy), ("clean", clean)):
        if image.shape != output.shape or image.shape[:2] != mask.shape:
            raise DataError(f"rain_scores: {name} is {image.shape}, the output {output.shape}, the mask {mask.shape}.")
    mask = mask.astype(bool)
    share = mask.mean()
    if min(share, 1 - share) < least_share:
        return None
    output = np.clip(output.astype(np.float64), 0, 1)
    oracle = _distance(clean, rainy, mask)
    change = _distance(output, rainy, mask)
    return RainScores(
        e_r=change,
        e_b=_distance(output, clean, ~mask),
        e_r_oracle=oracle,
        removal_ratio=change / oracle if oracle > 0 else 0.0,
        residual=_distance(output, clean, mask),
    )


def degradation_removal(output: np.ndarray, degraded: np.ndarray, clean: np.ndarray) -> float | None:
    """Return the share of a degradation that is gone: 1 - <Y - B, O - B> / <O - B, O - B>.

    The analogue of E_R where the degradation is everywhere (noise, blur): 0 for the identity, 1 for a perfect network.
    None where there is no degradation.

    Args:
        output: Y, any shape, range [0, 1]; clipped to it first.
        degraded: O, the same shape.
        clean: B, the same shape.
    """
    wrong = degraded.astype(np.float64) - clean
    power = (wrong**2).sum()
    if power == 0:
        return None
    return float(1 - ((np.clip(output.astype(np.float64), 0, 1) - clean) * wrong).sum() / power)


def _distance(first: np.ndarray, second: np.ndarray, where: np.ndarray) -> float:
    return float(np.sqrt(((first[where].astype(np.float64) - second[where]) ** 2).mean()))
