"""Maps of degradations: how well they are predicted, and what they look like."""

from __future__ import annotations

import numpy as np

__all__ = ["PALETTE", "colour_map", "mean_iou"]

#: RGB of the classes, in order: colours that are also told apart with a colour vision deficiency (after Okabe and Ito).
PALETTE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (120, 120, 120),
)  # fmt: skip


def mean_iou(confusion: np.ndarray) -> float:
    """Return the mean over the classes that occur of intersection / union, from counts (row true, column predicted)."""
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    present = union > 0
    return float((intersection[present] / union[present]).mean()) if present.any() else float("nan")


def colour_map(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return an RGB picture ``(h, w, 3)``, uint8, of integer labels ``(h, w)``; further classes get darker colours."""
    table = [
        tuple(int(channel / (1 + index // len(PALETTE))) for channel in PALETTE[index % len(PALETTE)])
        for index in range(classes)
    ]
    return np.array(table, dtype=np.uint8)[labels]
