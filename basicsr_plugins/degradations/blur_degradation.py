"""Blur: Gaussian (isotropic or not, BasicSR's kernel families), motion along a line or a curve, defocus."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from basicsr_plugins.core.options import option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.degradations.base import Degradation, Degraded, Range, in_order, pick, pick_int
from basicsr_plugins.degradations.fields import scratch

__all__ = [
    "DefocusBlur",
    "GaussianBlur",
    "MotionBlur",
    "disc_kernel",
    "gaussian_kernel",
    "motion_kernel",
    "sparse_filter",
]


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
    steps = max(2, int(np.ceil(2 * length)))
    position = (np.arange(steps) + 0.5) / steps - 0.5
    heading = np.deg2rad(angle + curve * position)
    x, y = np.cos(heading).cumsum(), -np.sin(heading).cumsum()
    scale = length / steps
    x, y = (x - x.mean()) * scale, (y - y.mean()) * scale
    radius = int(max(-x.min(), x.max(), -y.min(), y.max())) + 2
    side = 2 * radius + 1
    x, y = x + radius, y + radius
    left, top = x.astype(np.int64), y.astype(np.int64)
    dx, dy = x - left, y - top
    corner = top * side + left
    cells = np.concatenate((corner, corner + 1, corner + side, corner + side + 1))
    weights = np.concatenate(((1 - dx) * (1 - dy), dx * (1 - dy), (1 - dx) * dy, dx * dy))
    kernel = np.bincount(cells, weights, side * side)
    kernel[kernel < 0.05 * kernel.max()] = 0.0  # the faint rim of a line costs as much time as the line
    return (kernel / kernel.sum()).astype(np.float32).reshape(side, side)


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
    out = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.clip(out, 0.0, 1.0, out=out)


#: OpenCV's ``filter2D`` goes to the frequency domain from this area on; below it only weights above 0 cost time.
_DIRECT_AREA = 130
#: Up to so many weights above 0, a few small filters are faster than one in the frequency domain.
_SPARSE = 110


def sparse_filter(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filter with a kernel that is mostly 0, such as a line; the same result as ``cv2.filter2D``, faster.

    The kernel is cut to what is not 0, and halved until each piece is small enough for the direct method.
    """
    if np.count_nonzero(kernel) > _SPARSE:
        return _filter(image, kernel)
    height, width = image.shape[:2]
    middle = kernel.shape[0] // 2
    pieces = list(_pieces(kernel, 0, 0))
    if len(pieces) == 1:
        top, left, piece = pieces[0]
        anchor = (middle - left, middle - top)
        if 0 <= anchor[0] < piece.shape[1] and 0 <= anchor[1] < piece.shape[0]:
            out = cv2.filter2D(image, -1, piece, anchor=anchor, borderType=cv2.BORDER_REFLECT_101)
            return np.clip(out, 0.0, 1.0, out=out)
    padded = scratch("padded", (height + 2 * middle, width + 2 * middle, 3))
    cv2.copyMakeBorder(image, middle, middle, middle, middle, cv2.BORDER_REFLECT_101, dst=padded)
    total = np.zeros_like(image)
    for top, left, piece in pieces:
        rows, cols = height + piece.shape[0] - 1, width + piece.shape[1] - 1
        part = scratch("part", (rows, cols, 3))
        window = padded[top : top + rows, left : left + cols]
        cv2.filter2D(window, -1, piece, dst=part, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
        cv2.add(total, part[:height, :width], dst=total)
    return np.clip(total, 0.0, 1.0, out=total)


def _pieces(kernel: np.ndarray, top: int, left: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (top, left, part) of the parts of a kernel that are not 0, each below ``_DIRECT_AREA``."""
    rows, cols = kernel.any(axis=1).nonzero()[0], kernel.any(axis=0).nonzero()[0]
    if not len(rows):
        return
    top, left = top + int(rows[0]), left + int(cols[0])
    kernel = kernel[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    height, width = kernel.shape
    if height * width < _DIRECT_AREA:
        yield top, left, kernel
    elif height >= width:
        yield from _pieces(kernel[: height // 2], top, left)
        yield from _pieces(kernel[height // 2 :], top + height // 2, left)
    else:
        yield from _pieces(kernel[:, : width // 2], top, left)
        yield from _pieces(kernel[:, width // 2 :], top, left + width // 2)


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
    truncate: float = option(3.0, "half side of the kernel, in sigmas", check=in_order(0.5, 10.0))

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
    angle: Range = option((0.0, 180.0), "direction, degrees", check=in_order(-360.0, 360.0))
    curve: Range = option((-60.0, 60.0), "turn along the path, degrees", check=in_order(-360.0, 360.0))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {
            "length": pick(rng, self.length, severity),
            "angle": pick(rng, self.angle),
            "curve": pick(rng, self.curve),
        }

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        kernel = motion_kernel(params["length"], params["angle"], params["curve"])
        return Degraded(sparse_filter(image, kernel), dict(params))


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
    step: float = option(0.25, "radii are rounded to multiples of this", check=in_order(0.01, 8.0))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        steps = np.asarray([*np.atleast_1d(self.radius)]) / self.step
        return {"radius": max(1, pick_int(rng, (float(steps[0]), float(steps[-1])), severity)) * self.step}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        return Degraded(_filter(image, disc_kernel(float(params["radius"]))), dict(params))
