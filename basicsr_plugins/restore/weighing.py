"""Which adapters an image gets, and how sure the estimator is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, cast

import torch
from torch import Tensor

from basicsr_plugins.adapters.rule import BlendRule
from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["WINDOW", "Weigher", "fixed_weights", "is_unsure", "windows_of"]

#: A larger image is judged by nine windows of this side: the traces of noise and JPEG survive no shrinking.
WINDOW = 512


def fixed_weights(given: Mapping[str, float], names: Sequence[str]) -> Tensor:
    """Return (1, K) weights from ``{adapter: weight}``; adapters that are not named get 0.

    Raises:
        OptionError: An adapter is unknown.
    """
    for name in given:
        if name not in names:
            raise OptionError(f"--weights: {one_of(name, names, 'adapter')}")
    return torch.tensor([[float(given.get(name, 0.0)) for name in names]])


def is_unsure(seen: Mapping[str, float]) -> bool:
    """Whether no degradation takes half of the estimator's belief, or two share the lead within 0.15."""
    first, second = sorted([*seen.values(), 0.0, 0.0], reverse=True)[:2]
    return first < 0.5 or first - second < 0.15


class Weigher:
    """The estimator of ABAIR in front of a picture of any size.

    Args:
        estimator: A ``DegradationEstimator``.
        names: The adapters, in the order of the weights.
        rule: What becomes of its answer.
    """

    def __init__(self, estimator: Any, names: Sequence[str], rule: Optional[BlendRule] = None) -> None:
        self.estimator, self.names, self.rule = estimator, list(names), rule or BlendRule()

    @torch.no_grad()
    def probabilities(self, windows: Sequence[Tensor]) -> Tensor:
        """Return (1, K) probabilities of the estimator's classes, averaged over windows (1, 3, h, w) of a picture."""
        each = [self.estimator(window).float().softmax(dim=1) for window in windows]
        return torch.stack(each).mean(dim=0)

    def seen(self, windows: Sequence[Tensor]) -> dict[str, float]:
        """Return the share of each class, ``clean`` among them where the estimator knows it, the largest first."""
        shares = self.probabilities(windows)[0].tolist()
        return dict(sorted(zip(self.estimator.classes, shares), key=lambda pair: -pair[1]))

    def blend(self, seen: Mapping[str, float]) -> tuple[Tensor, Optional[Tensor]]:
        """Return (1, K) weights of the adapters for what was seen, and how much of the picture stays as it is, (1)."""
        return self._soft(torch.tensor([[seen[name] for name in self.estimator.classes]]))

    def _soft(self, shares: Tensor) -> tuple[Tensor, Optional[Tensor]]:
        """Blend by shares of the classes, as the paper does."""
        weights, kept = self.rule.blend("soft", self.names, shares, self.estimator.classes)
        return cast(Tensor, weights), kept  # None belongs to other modes

    @torch.no_grad()
    def maps(self, window: Tensor, cell: int = 32) -> Tensor:
        """Return (K, rows, columns) weights of the adapters per region of a window (1, 3, h, w)."""
        shares = self.estimator.maps(window, cell).float().softmax(dim=1)
        return self._soft(shares)[0][0].cpu()


def windows_of(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Return (top, bottom, left, right) of what the estimator sees: everything, or nine windows of a large image."""

    def spans(length: int) -> list[tuple[int, int]]:
        if length <= WINDOW:
            return [(0, length)]
        return [(start, start + WINDOW) for start in {0, (length - WINDOW) // 2, length - WINDOW}]

    if height * width <= (3 * WINDOW) ** 2:
        return [(0, height, 0, width)]
    return [(top, bottom, left, right) for top, bottom in spans(height) for left, right in spans(width)]
