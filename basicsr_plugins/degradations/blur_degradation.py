"""Blur: Gaussian (isotropic or not, BasicSR's kernel families), motion along a line or a curve, defocus."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from basicsr_plugins.degradations.base import Degradation, Degraded, Range, in_order, pick, pick_int
from basicsr_plugins.options import option
from basicsr_plugins.registration import provides

__all__ = ["DefocusBlur", "GaussianBlur", "MotionBlur", "disc_kernel", "gaussian_kernel", "motion_kernel"]


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float, angle: float) -> np.ndarray:
    """Return a Gaussian kernel (size, size) of sum 1; equal to BasicSR's ``bivariate_Gaussian``.

    Args:
        size: Odd side, pixels.
        sigma_x: Deviation along the axis that ``angle`` turns, pixels.
        sigma_y: Deviation across it, pixels.
        angle: Radians.
    """
    axis = np.arange(size, dtype=np.float64) - size // 2
    x, y = np.meshgrid(axis, axis)
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    kernel = np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    return (kernel / kernel.sum()).astype(np.float32)


def motion_kernel(length: float, angle: float, curve: float) -> np.ndarray:
    """Return the kernel of a camera moving at constant speed along an arc; non-negative, sum 1.

    Args:
        length: Of the path, pixels.
        angle: Of the chord's direction at mid-path, degrees, counter-clockwise from the horizontal.
        curve: Total turn along the path, degrees; 0 is a straight line.
    """
    steps = max(2, int(np.ceil(4 * length)))
    position = (np.arange(steps) + 0.5) / steps - 0.5
    heading = np.deg2rad(angle + curve * position)
    x, y = np.cumsum(np.cos(heading)), -np.cumsum(np.sin(heading))
    scale = length / steps
    x, y = (x - x.mean()) * scale, (y - y.mean()) * scale
    radius = int(np.ceil(max(np.abs(x).max(), np.abs(y).max()))) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), dtype=np.float64)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    dx, dy = x - left, y - top
    for row, col, weight in (
        (top, left, (1 - dx) * (1 - dy)),
        (top, left + 1, dx * (1 - dy)),
        (top + 1, left, (1 - dx) * dy),
        (top + 1, left + 1, dx * dy),
    ):
        np.add.at(kernel, (row + radius, col + radius), weight)
    return (kernel / kernel.sum()).astype(np.float32)


@functools.lru_cache(maxsize=256)
def disc_kernel(radius: float) -> np.ndarray:
    """Return a disc of ``radius`` pixels with a soft edge of one pixel, sum 1: the kernel of a lens out of focus."""
    half = int(np.ceil(radius))
    axis = np.arange(-half, half + 1, dtype=np.float64)
    distance = np.hypot(axis[:, None], axis[None, :])
    kernel = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    kernel.setflags(write=False)
    return kernel


def _filter(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.clip(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), 0.0, 1.0)


@provides("degradation")
@dataclass
class GaussianBlur(Degradation):
    """Gaussian blur, isotropic or anisotropic, or BasicSR's generalized and plateau-shaped kernels.

    Args:
        sigma: Pixels.
        kernel: ``iso`` | ``aniso`` | ``generalized`` | ``plateau``; the last two are BasicSR's own functions.
        beta: Shape of the last two (1 is Gaussian for ``generalized``).
        truncate: Half side of the kernel in sigmas.
    """

    short = "gaussian_blur"

    sigma: Range = option((0.5, 4.0), "standard deviation, pixels", check=in_order(0.05, 50.0))
    kernel: Literal["iso", "aniso", "generalized", "plateau"] = option("iso", "family of the kernel")
    ratio: Range = option((0.3, 1.0), "short over long axis, where not isotropic", check=in_order(0.05, 1.0))
    beta: Range = option((0.5, 4.0), "shape of generalized kernels", source="Real-ESRGAN", check=in_order(0.1, 10.0))
    truncate: float = option(3.0, "half side of the kernel, in sigmas")

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        params: dict[str, Any] = {"sigma": pick(rng, self.sigma, severity)}
        if self.kernel != "iso":
            params.update(ratio=pick(rng, self.ratio), angle=float(rng.uniform(-np.pi, np.pi)))
        if self.kernel in ("generalized", "plateau"):
            params["beta"] = pick(rng, self.beta)
        return params

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        sigma = params["sigma"]
        side = 2 * max(1, int(np.ceil(self.truncate * sigma))) + 1
        if self.kernel == "iso":
            out = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)
            return Degraded(np.clip(out, 0.0, 1.0, out=out), dict(params))
        return Degraded(_filter(image, self._kernel(side, params)), dict(params))

    def _kernel(self, side: int, params: Mapping[str, Any]) -> np.ndarray:
        long, short, angle = params["sigma"], params["sigma"] * params["ratio"], params["angle"]
        if self.kernel == "aniso":
            return gaussian_kernel(side, long, short, angle)
        from basicsr.data import degradations as stock_kernels

        family = {
            "generalized": stock_kernels.bivariate_generalized_Gaussian,
            "plateau": stock_kernels.bivariate_plateau,
        }[self.kernel]
        return family(side, long, short, angle, params["beta"], isotropic=False).astype(np.float32)


@provides("degradation")
@dataclass
class MotionBlur(Degradation):
    """Blur of a camera that moves along a line or a gentle arc.

    Args:
        length: Of the path, pixels.
        angle: Direction, degrees; a line has no more than 180 of them.
        curve: Total turn along the path, degrees.
    """

    short = "motion_blur"

    length: Range = option((5.0, 35.0), "length of the path, pixels", check=in_order(1.0, 301.0))
    angle: Range = option((0.0, 180.0), "direction, degrees")
    curve: Range = option((-60.0, 60.0), "turn along the path, degrees")

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {
            "length": pick(rng, self.length, severity),
            "angle": pick(rng, self.angle),
            "curve": pick(rng, self.curve),
        }

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        kernel = motion_kernel(params["length"], params["angle"], params["curve"])
        return Degraded(_filter(image, kernel), dict(params))


@provides("degradation")
@dataclass
class DefocusBlur(Degradation):
    """Blur of a lens out of focus: a disc.

    Args:
        radius: Of the disc, pixels.
        step: Radii are rounded to this, so that kernels can be kept.
    """

    short = "defocus"

    radius: Range = option((1.0, 8.0), "radius of the disc, pixels", check=in_order(0.5, 64.0))
    step: float = option(
        0.25, "radii are rounded to multiples of this", check=lambda v: None if v > 0 else "must be > 0"
    )

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        steps = np.asarray([*np.atleast_1d(self.radius)]) / self.step
        return {"radius": pick_int(rng, (float(steps[0]), float(steps[-1])), severity) * self.step}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        return Degraded(_filter(image, disc_kernel(float(params["radius"]))), dict(params))
