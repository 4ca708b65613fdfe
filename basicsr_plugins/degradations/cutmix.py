"""Degradation CutMix: several degradations of one image side by side, and the map that says which is where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from basicsr_plugins.core.options import fraction, option, positive
from basicsr_plugins.degradations.base import Degradation, Degraded

__all__ = ["CutMixOptions", "cut_rectangle", "degradation_cutmix"]


@dataclass
class CutMixOptions:
    """The ``cutmix`` section. Nothing but the principle is published, so every default is ours."""

    probability: float = option(0.5, "share of the samples that are mixed", check=fraction)
    alpha: float = option(1.0, "of the Beta(alpha, alpha) law of the rectangle's share", check=positive)
    regions: int = option(1, "rectangles pasted, each with a degradation unlike the one before", check=positive)


def cut_rectangle(size: tuple[int, int], rng: np.random.Generator, alpha: float = 1.0) -> tuple[slice, slice]:
    """Return a rectangle (rows, columns): sides sqrt(1 - lambda) of the image's, lambda ~ Beta(alpha, alpha), centre
    uniform, clipped at the border."""
    height, width = size
    side = float(np.sqrt(1.0 - rng.beta(alpha, alpha)))
    half_height, half_width = side * height / 2, side * width / 2
    row, col = rng.random() * height, rng.random() * width
    return (
        slice(max(0, round(row - half_height)), min(height, round(row + half_height))),
        slice(max(0, round(col - half_width)), min(width, round(col + half_width))),
    )


def degradation_cutmix(
    image: np.ndarray,
    degradations: Sequence[tuple[Degradation, int]],
    rng: np.random.Generator,
    options: CutMixOptions,
    depth: np.ndarray | None = None,
) -> tuple[Degraded, np.ndarray]:
    """Degrade one image in ways that differ from place to place (ABAIR, arXiv 2411.18412, figure 2).

    Each degradation is computed on the whole image and then a rectangle of it is pasted, so that a blur sees what lies
    outside its region.

    Args:
        image: Clean, float32 RGB ``(h, w, 3)``.
        degradations: ``regions + 1`` pairs of a degradation and its label; the first covers the ground.
        rng: Source of every draw.
        options: See ``CutMixOptions``.
        depth: ``(h, w)`` in [0, 1], for the degradations that use one.

    Returns:
        The result, whose layers are cut to their regions, and the label of each pixel, int64 ``(h, w)``.
    """
    size = image.shape[:2]
    ground, label = degradations[0]
    result = ground(image, rng, depth=depth)
    mixed, labels = result.image, np.full(size, label, dtype=np.int64)
    layers = {name: layer.copy() for name, layer in result.layers.items()}
    params: dict[str, Any] = {"type": "CutMix", "ground": result.params, "regions": []}
    for degradation, label in degradations[1:]:
        patch = degradation(image, rng, depth=depth)
        rows, cols = cut_rectangle(size, rng, options.alpha)
        mixed[rows, cols] = patch.image[rows, cols]
        labels[rows, cols] = label
        for layer in layers.values():
            layer[rows, cols] = 0
        for name, layer in patch.layers.items():
            whole = layers.setdefault(name, np.zeros_like(layer))
            whole[rows, cols] = layer[rows, cols]
        box = [rows.start, rows.stop, cols.start, cols.stop]
        params["regions"].append({"box": box, **patch.params})
    return Degraded(mixed, params, layers), labels
