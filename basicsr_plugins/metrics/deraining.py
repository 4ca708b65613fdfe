"""Rain removal and background error apart from each other (deraining-generalization studies, arXiv 2305.15134)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["DerainingErrors", "decoupled_errors", "difference_mask"]


@dataclass(frozen=True)
class DerainingErrors:
    """Figures of one image, in units of full scale 1; NaN where too few pixels decide.

    Attributes:
        removal: E_R, what was changed where it rains; 0 for a network that does nothing.
        perfect_removal: E_R of the clean image.
        residual: Distance to the clean image where it rains: guards against counting damage as removal.
        background: E_B, distance to the clean image where it does not rain.
        rain_share: Share of the pixels where it rains.
    """

    removal: float
    perfect_removal: float
    residual: float
    background: float
    rain_share: float

    @property
    def removal_ratio(self) -> float:
        """Removal over the removal of the clean image."""
        return self.removal / self.perfect_removal if self.perfect_removal > 0 else float("nan")


def difference_mask(rainy: np.ndarray, clean: np.ndarray, threshold: float = 10 / 255) -> np.ndarray:
    """Return where it rains, bool ``(h, w)``, for a pair without a rain layer: any channel differs by more."""
    # a millionth: two grey levels of 8 bits, divided by 255, differ by a little more or less than they did before
    return np.abs(rainy - clean).max(axis=2) > threshold + 1e-6


def decoupled_errors(
    output: np.ndarray, rainy: np.ndarray, clean: np.ndarray, mask: np.ndarray | None = None,
    threshold: float = 10 / 255, min_share: float = 0.01,
) -> DerainingErrors:  # fmt: skip
    """Split the error of a derained image into rain removal and background.

    E_R = sqrt(mean over rain of (Y - O)^2), E_B = sqrt(mean over background of (Y - B)^2), over pixels and channels,
    with the output Y clipped to [0, 1].

    Args:
        output: Y ``(h, w, c)``, float, full scale 1.
        rainy: O, the input.
        clean: B.
        mask: Where it rains, ``(h, w)``; left out, where O and B differ by more than ``threshold`` in a channel.
        threshold: Of that difference.
        min_share: Figures of a part with a smaller share of the pixels are NaN.
    """
    output = np.clip(output.astype(np.float64), 0.0, 1.0)
    rainy, clean = rainy.astype(np.float64), clean.astype(np.float64)
    rain = difference_mask(rainy, clean, threshold) if mask is None else np.asarray(mask) > 0.5
    share = float(rain.mean())

    def distance(first: np.ndarray, second: np.ndarray, where: np.ndarray, part: float) -> float:
        if part < min_share or part == 0:
            return float("nan")
        return float(np.sqrt(np.mean((first[where] - second[where]) ** 2)))

    return DerainingErrors(
        removal=distance(output, rainy, rain, share),
        perfect_removal=distance(clean, rainy, rain, share),
        residual=distance(output, clean, rain, share),
        background=distance(output, clean, ~rain, 1.0 - share),
        rain_share=share,
    )
