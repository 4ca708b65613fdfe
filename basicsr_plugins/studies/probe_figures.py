"""Pictures of the kNN probe: confusion matrices and t-SNE, one panel a kind of feature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from basicsr_plugins.studies.figures import new_figure, save_figure
from basicsr_plugins.studies.probe import ProbeResult

__all__ = ["draw_confusions", "draw_embeddings"]


def draw_confusions(results: Sequence[ProbeResult], names: Sequence[str], path: str | Path) -> Path:
    """Draw the confusion matrices, in shares of the true class.

    Args:
        results: One panel each.
        names: One per class.
        path: Where to write.
    """
    figure, axes = new_figure(1, len(results), width=1.6 + 0.45 * len(names), height=1.9 + 0.4 * len(names))
    for axis, result in zip(axes[0], results):
        shares = result.confusion / np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(shares.shape):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", fontsize=7, color=ink)
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_xlabel("predicted")
        axis.set_title(f"{result.name}\n{np.mean(result.accuracies):.3f}", fontsize=8)
    return save_figure(figure, path)


def draw_embeddings(results: Sequence[ProbeResult], labels: np.ndarray, names: Sequence[str], path: str | Path) -> Path:
    """Draw the t-SNE coordinates, one colour a class.

    Args:
        results: One panel each; those without coordinates are passed over.
        labels: ``(n,)``.
        names: One per class.
        path: Where to write.
    """
    panels = [(result.name, result.embedding) for result in results if result.embedding is not None]
    figure, axes = new_figure(1, max(1, len(panels)))
    for axis, (title, embedding) in zip(axes[0], panels):
        for label, name in enumerate(names):
            points = embedding[labels == label]
            axis.scatter(points[:, 0], points[:, 1], s=6, label=name)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(title, fontsize=8)
    axes[0][0].legend(fontsize=6)
    return save_figure(figure, path)
