"""A confusion matrix as a picture, for TensorBoard and reports."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

__all__ = ["confusion_picture"]

_CELL, _FONT = 56, cv2.FONT_HERSHEY_SIMPLEX


def confusion_picture(confusion: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return an RGB picture ``(h, w, 3)`` uint8: rows are true classes, the darker a cell the larger its share.

    Args:
        confusion: Counts ``(classes, classes)``.
        names: One per class.
    """
    classes = len(confusion)
    margin = 12 + max(_width(name) for name in names)
    side = classes * _CELL
    picture = np.full((margin + side, margin + side, 3), 255, dtype=np.uint8)
    header = np.full((side, margin, 3), 255, dtype=np.uint8)  # the predicted classes, to be turned upright
    for index, name in enumerate(names):
        middle = index * _CELL + _CELL // 2 + 5
        cv2.putText(picture, name, (4, margin + middle), _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        cv2.putText(header, name, (8, middle), _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    picture[:margin, margin:] = cv2.rotate(header, cv2.ROTATE_90_COUNTERCLOCKWISE)  # the text reads upwards
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(confusion.shape):
        share = float(shares[row, column])
        top, left = margin + row * _CELL, margin + column * _CELL
        colour = tuple(round(255 - share * (255 - channel)) for channel in (8, 69, 148))
        cv2.rectangle(picture, (left, top), (left + _CELL - 2, top + _CELL - 2), colour, -1)
        text = str(int(confusion[row, column]))
        ink = (255, 255, 255) if share > 0.5 else (0, 0, 0)
        place = (left + (_CELL - _width(text)) // 2, top + _CELL // 2 + 5)
        cv2.putText(picture, text, place, _FONT, 0.45, ink, 1, cv2.LINE_AA)
    return picture


def _width(text: str) -> int:
    return cv2.getTextSize(text, _FONT, 0.45, 1)[0][0]
