"""A contact sheet: every degradation at several severities of one photograph."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from basicsr_plugins.core.registration import provided
from basicsr_plugins.degradations.base import Degradation
from basicsr_plugins.degradations.build import build_degradation
from basicsr_plugins.degradations.jpeg_degradation import to_uint8

__all__ = ["SHEET_SEVERITIES", "draw_sheet", "sheet_degradations"]

SHEET_SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
_CELL, _LABEL, _GAP = 256, 22, 6
_ZOOM, _INSET = 4, 24  # a corner shows the 24 x 24 pixels that change most four times as large


def sheet_degradations() -> dict[str, Degradation]:
    """Return every degradation that shows something, by short name, with the options of its example."""
    kinds = sorted(provided("degradation").items())
    shown = {kind.short: {"type": name, **kind.example} for name, kind in kinds if kind.short != "clean"}
    return {short: build_degradation(opt, short) for short, opt in shown.items()}


def draw_sheet(
    image: np.ndarray,
    degradations: dict[str, Degradation] | None = None,
    severities: Sequence[float] = SHEET_SEVERITIES,
    seed: int = 0,
) -> np.ndarray:
    """Return the sheet as a BGR uint8 picture: one row per degradation, the clean image first.

    Args:
        image: float32 RGB ``(h, w, 3)``; its centre square is scaled to 256 pixels.
        degradations: By the label of their row; all of them if left out.
        severities: One column each.
        seed: The same in every column, so that only the severity changes along a row.
    """
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    square = np.clip(cv2.resize(square, (_CELL, _CELL), interpolation=cv2.INTER_AREA), 0.0, 1.0)
    rows = []
    for label, degradation in (degradations if degradations is not None else sheet_degradations()).items():
        images = [degradation(square, np.random.default_rng(seed), severity=s).image for s in severities]
        corner = _most_changed(square, images[-1])
        cells = [_cell(square, f"{label}: clean", corner)]
        cells += [_cell(image, f"{severity:g}", corner) for image, severity in zip(images, severities)]
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows, axis=0)


def _most_changed(clean: np.ndarray, degraded: np.ndarray) -> tuple[int, int]:
    # where the change is uneven: a flat change (haze over black) shows nothing when enlarged
    change = (degraded - clean).mean(axis=2)
    window = (_INSET, _INSET)
    change = (cv2.blur(change * change, window) - cv2.blur(change, window) ** 2)[_INSET:-_INSET, _INSET:-_INSET]
    row, column = np.unravel_index(int(np.argmax(change)), change.shape)
    return int(row) + _INSET // 2, int(column) + _INSET // 2


def _cell(image: np.ndarray, label: str, corner: tuple[int, int]) -> np.ndarray:
    picture = cv2.cvtColor(to_uint8(image), cv2.COLOR_RGB2BGR)
    row, column = corner
    patch = picture[row : row + _INSET, column : column + _INSET]
    large = cv2.resize(patch, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_NEAREST)
    large = cv2.copyMakeBorder(large, 2, 0, 2, 0, cv2.BORDER_CONSTANT, value=(0, 255, 255))
    picture[-large.shape[0] :, -large.shape[1] :] = large
    cell = np.full((_CELL + _LABEL + _GAP, _CELL + _GAP, 3), 255, dtype=np.uint8)
    cell[_LABEL : _LABEL + _CELL, :_CELL] = picture
    cv2.putText(cell, label, (2, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return cell
