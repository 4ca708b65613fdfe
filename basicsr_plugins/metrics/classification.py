"""Accuracy, per-class accuracy and confusion matrix of a degradation classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import numpy as np

__all__ = ["accuracies", "calculate_accuracy", "confusion_matrix", "format_confusion"]


def confusion_matrix(
    labels: Union[Sequence[int], np.ndarray], predictions: Union[Sequence[int], np.ndarray], classes: int
) -> np.ndarray:
    """Return counts (classes, classes): row = true label, column = prediction."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)), 1)
    return counts


def accuracies(confusion: np.ndarray) -> tuple[float, list[float]]:
    """Return the top-1 accuracy in [0, 1] and that of each class (NaN for a class without samples)."""
    total, rows = confusion.sum(), confusion.sum(axis=1)
    correct = np.diag(confusion)
    per_class = [float(c / n) if n else float("nan") for c, n in zip(correct, rows)]
    return (float(correct.sum() / total) if total else float("nan")), per_class


def format_confusion(confusion: np.ndarray, names: Sequence[str]) -> str:
    """Return a table for the log: one line a true class, one column a predicted one, the accuracy at the end."""
    _, per_class = accuracies(confusion)
    width = max(7, *(len(name) for name in names)) + 1
    lines = ["\t true \\ predicted"]
    lines.append("\t " + " " * width + "".join(f"{name:>{width}}" for name in names) + f"{'accuracy':>10}")
    for name, row, accuracy in zip(names, confusion, per_class):
        lines.append("\t " + f"{name:<{width}}" + "".join(f"{n:>{width}d}" for n in row) + f"{accuracy:>10.3f}")
    return "\n".join(lines)


def calculate_accuracy(logits: Union[np.ndarray, Sequence[float]], label: int, top_k: int = 1) -> float:
    """Return 1.0 if the label is among the ``top_k`` largest logits of one image, else 0.0; its mean is the accuracy.

    No metric of an option file, which measures images: recipes that classify report their accuracy by themselves.
    Ties count against the prediction.

    Args:
        logits: Scores ``(classes,)``.
        label: True class.
        top_k: How many guesses.
    """
    scores = np.asarray(logits, dtype=np.float64).reshape(-1)
    better = int((scores >= scores[label]).sum()) - 1
    return float(better < top_k)
