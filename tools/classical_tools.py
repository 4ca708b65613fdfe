"""What a person would take instead of a network: one classical tool for each degradation, at its best setting.

Every function takes an image (h, w, 3) of uint8 RGB and returns one. ``TOOLS`` names for each degradation the tools and
the settings that are tried; ``evaluate_builtin.py`` lets each take the setting that is best on average over the test
images, which favours the tools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

__all__ = ["TOOLS", "Tool"]

Image = np.ndarray


@dataclass(frozen=True)
class Tool:
    """A classical tool and the settings that are tried.

    Args:
        name: In the table.
        run: Takes an image and one setting.
        settings: The settings.
        once: Too slow for every seed; runs on the first one.
    """

    name: str
    run: Callable[[Image, Any], Image]
    settings: Sequence[Any]
    once: bool = False


def non_local_means(image: Image, h: float) -> Image:
    """OpenCV's non-local means in colour (Buades et al. 2011)."""
    return cv2.fastNlMeansDenoisingColored(image, None, h, h, 7, 21)


def bm3d(image: Image, sigma: float) -> Image:
    """BM3D in colour with the true standard deviation (Dabov et al. 2007; the package bm3d)."""
    from bm3d import bm3d_rgb

    return _to_bytes(bm3d_rgb(image / 255.0, sigma / 255.0))


def median(image: Image, side: int) -> Image:
    """A median filter in each channel."""
    return cv2.medianBlur(image, side)


def dark_channel(image: Image, strength: float) -> Image:
    """Dehazing by the dark channel prior (He et al. 2011), its map refined by a guided filter."""
    scaled = image.astype(np.float32) / 255
    kernel = np.ones((15, 15), np.uint8)
    dark = cv2.erode(scaled.min(axis=2), kernel)
    brightest = np.argsort(dark.ravel())[-max(1, dark.size // 1000) :]
    airlight = np.clip(scaled.reshape(-1, 3)[brightest].mean(axis=0), 0.1, 1)
    transmission = 1 - strength * cv2.erode((scaled / airlight).min(axis=2), kernel)
    transmission = _guided(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255, transmission, 40, 1e-3)
    return _to_bytes((scaled - airlight) / np.maximum(transmission, 0.1)[..., None] + airlight)


def _guided(guide: Image, values: Image, radius: int, epsilon: float) -> Image:
    def mean(x: Image) -> Image:
        return cv2.blur(x, (2 * radius + 1, 2 * radius + 1))

    slope = (mean(guide * values) - mean(guide) * mean(values)) / (mean(guide * guide) - mean(guide) ** 2 + epsilon)
    return mean(slope) * guide + mean(mean(values) - slope * mean(guide))


def clahe(image: Image, limit: float) -> Image:
    """Contrast-limited equalisation of the lightness."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(limit, (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def gamma(image: Image, exponent: float) -> Image:
    """A power of the values, stretched to the whole range (its 99.5th percentile becomes white)."""
    scaled = image / max(1.0, float(np.percentile(image, 99.5)))
    return _to_bytes(np.clip(scaled, 0, 1) ** exponent)


def unsharp(image: Image, amount: float) -> Image:
    """Unsharp masking with a Gaussian of 1.5 pixels."""
    return cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), 1.5), -amount, 0)


def wiener(image: Image, balance: float) -> Image:
    """Wiener deconvolution (scikit-image) with the true kernel, a Gaussian of 1.5 pixels."""
    from skimage.restoration import wiener as deconvolve

    line = cv2.getGaussianKernel(13, 1.5)
    padded = np.pad(image / 255.0, ((16, 16), (16, 16), (0, 0)), mode="reflect")
    channels = [deconvolve(padded[..., c], line @ line.T, balance) for c in range(3)]
    return _to_bytes(np.stack(channels, axis=2)[16:-16, 16:-16])


def bilateral(image: Image, sigma: float) -> Image:
    """A bilateral filter."""
    return cv2.bilateralFilter(image, 5, sigma, 3)


def _to_bytes(image: Image) -> Image:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


TOOLS: dict[str, tuple[Tool, ...]] = {
    "rain": (Tool("median filter", median, (3, 5)),),
    "noise": (Tool("non-local means", non_local_means, (8, 12, 16, 20)), Tool("BM3D", bm3d, (25,), once=True)),
    "haze": (Tool("dark channel", dark_channel, (0.6, 0.8, 0.95)),),
    "low_light": (Tool("gamma", gamma, (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)), Tool("CLAHE", clahe, (2, 4, 8, 16))),
    "blur": (Tool("unsharp mask", unsharp, (0.5, 1, 1.5, 2)), Tool("Wiener", wiener, (1e-3, 3e-3, 1e-2, 3e-2))),
    "jpeg": (Tool("bilateral filter", bilateral, (5, 10, 15, 25)),),
    "snow": (Tool("median filter", median, (3, 5, 7)),),
}
