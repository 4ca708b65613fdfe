"""Noise: Gaussian, Poisson, speckle, salt and pepper, spatially correlated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional

import cv2
import numpy as np

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.degradations.base import (
    Degradation,
    Degraded,
    Range,
    draw_seed,
    field_rng,
    in_order,
    pick,
    pick_int,
    span,
)
from basicsr_plugins.degradations.fields import scaled_normal

__all__ = ["CorrelatedNoise", "GaussianNoise", "PoissonNoise", "SaltPepperNoise", "SpeckleNoise"]

Quantize = Literal["none", "round", "floor"]


@dataclass
class _Noise(Degradation):
    """What every noise shares: how the sum is brought back into an image."""

    clip: bool = option(True, "clip the result to [0, 1]; DCPT's own data does not", source="BasicSR degradations.py")
    quantize: Quantize = option(
        "none", "'round' to 8 bits, 'floor' as the AirNet family's cast to uint8 does", source="BasicSR degradations.py"
    )

    def finish(self, image: np.ndarray) -> np.ndarray:
        """Clip and quantise in place, as the options say."""
        if self.clip:
            np.clip(image, 0.0, 1.0, out=image)
        if self.quantize != "none":
            image *= np.float32(255.0)
            # a value that came from k/255 may sit one ulp below k: without the margin floor() would lose a grey level
            np.rint(image, out=image) if self.quantize == "round" else np.floor(image + np.float32(1e-4), out=image)
            image /= np.float32(255.0)
        return image


@provides("degradation")
@dataclass
class GaussianNoise(_Noise):
    """White Gaussian noise: y = x + N(0, (sigma / 255)^2), independent per channel.

    Two conventions are in use and give different PSNR: the AirNet family clips and casts to uint8 (``clip: true,
    quantize: floor``), DCPT keeps floats (``clip: false``).

    Args:
        sigma: Standard deviation on the 0..255 scale.
        sigmas: Fixed levels to choose from instead of a range (15, 25, 50 in most denoising tables).
        grey: One noise field for the three channels.

    Example:
        ``{type: GaussianNoise, sigmas: [15, 25, 50], clip: false}``
    """

    short = "noise"

    sigma: Range = option((5.0, 55.0), "standard deviation, 0..255 scale", check=in_order(0.0, 255.0))
    sigmas: Optional[list[float]] = option(None, "levels to choose from instead of the range")
    grey: bool = option(False, "the same noise in the three channels")
    exact: bool = option(False, "draw every value, eight times as slow as windows of fixed tables")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigmas is not None and (not self.sigmas or min(self.sigmas) < 0 or max(self.sigmas) > 255):
            raise OptionError(f"sigmas: expected levels from 0 to 255 such as [15, 25, 50], got {self.sigmas!r}.")

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        if self.sigmas is not None:
            levels = sorted(self.sigmas)
            sigma = levels[pick_int(rng, (0, len(levels) - 1), severity)]
        else:
            sigma = pick(rng, self.sigma, severity)
        return {"sigma": float(sigma), "field_seed": draw_seed(rng)}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        height, width = image.shape[:2]
        shape = (height, width, 1 if self.grey else 3)
        noise = scaled_normal(field_rng(params), shape, params["sigma"] / 255.0, self.exact)
        noise = noise + image if self.grey else np.add(noise, image, out=noise)
        return Degraded(self.finish(noise), dict(params))


@provides("degradation")
@dataclass
class PoissonNoise(_Noise):
    """Photon noise: y = Poisson(peak * x) / peak.

    Args:
        peak: Photons at white; fewer is noisier. ``10^alpha`` with alpha in 2 .. 3.5 in the deraining studies' test.
    """

    short = "poisson"

    peak: Range = option((20.0, 1000.0), "photons at white", check=in_order(1.0, 1e6))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        low, high = np.log(span(self.peak))
        return {"peak": float(np.exp(pick(rng, (low, high), severity, hard="low"))), "field_seed": draw_seed(rng)}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        peak = np.float32(params["peak"])
        counts = field_rng(params).poisson(np.maximum(image, 0.0) * peak)
        return Degraded(self.finish(counts.astype(np.float32) / peak), dict(params))


@provides("degradation")
@dataclass
class SpeckleNoise(_Noise):
    """Multiplicative noise: y = x + x * N(0, variance).

    Args:
        variance: Of the factor; .02, .03, .04 in the denoising-generalization test.
    """

    short = "speckle"

    variance: Range = option((0.01, 0.15), "variance of the factor", check=in_order(0.0, 4.0))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {"variance": pick(rng, self.variance, severity), "field_seed": draw_seed(rng)}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        factor = scaled_normal(field_rng(params), image.shape, float(np.sqrt(params["variance"])))
        factor += np.float32(1.0)
        return Degraded(self.finish(np.multiply(factor, image, out=factor)), dict(params))


@provides("degradation")
@dataclass
class SaltPepperNoise(_Noise):
    """A fraction of the pixels becomes white or black, all channels together.

    Args:
        density: Fraction of pixels replaced; .002 to .05 in the denoising-generalization test.
        salt: Share of them that becomes white.
    """

    short = "salt_pepper"

    density: Range = option((0.005, 0.2), "fraction of pixels replaced", check=in_order(0.0, 1.0))
    salt: Range = option(0.5, "share of white among them", check=in_order(0.0, 1.0))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        density = pick(rng, self.density, severity)
        return {"density": density, "salt": pick(rng, self.salt), "field_seed": draw_seed(rng)}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        # one uniform field of 16 bits decides both, so a denser draw only adds pixels to a sparser one
        level = field_rng(params).integers(0, 1 << 16, image.shape[0] * image.shape[1], dtype=np.uint16)
        salt = round(params["density"] * params["salt"] * (1 << 16))
        pepper = round(params["density"] * (1.0 - params["salt"]) * (1 << 16))
        white, black = np.flatnonzero(level < salt), np.flatnonzero(level >= (1 << 16) - pepper)
        out, layer = image.copy(), np.zeros(image.shape[:2], dtype=np.float32)
        for where, value in ((white, 1.0), (black, 0.0)):
            out.reshape(-1, 3)[where] = value
            layer.reshape(-1)[where] = 1.0
        return Degraded(self.finish(out), dict(params), {"salt_pepper": layer})


@provides("degradation")
@dataclass
class CorrelatedNoise(_Noise):
    """Spatially correlated noise: Gaussian noise smoothed by a box, then scaled back to ``sigma``.

    Args:
        sigma: Standard deviation of the smoothed noise, 0..255 scale.
        box: Side of the box filter, pixels (3 in the denoising-generalization test, which gives sigma 40-55 before
            the box, that is 13-18 after it).
    """

    short = "correlated_noise"

    sigma: Range = option((5.0, 50.0), "standard deviation after smoothing, 0..255", check=in_order(0.0, 255.0))
    box: Range = option((2, 5), "side of the box filter, pixels", check=in_order(1.0, 63.0))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {"sigma": pick(rng, self.sigma, severity), "box": pick_int(rng, self.box), "field_seed": draw_seed(rng)}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        box = int(params["box"])
        # the mean of box^2 values has 1/box of their deviation
        noise = scaled_normal(field_rng(params), image.shape, params["sigma"] / 255.0 * box)
        noise = cv2.blur(noise, (box, box), borderType=cv2.BORDER_REFLECT_101)
        noise += image
        return Degraded(self.finish(noise), dict(params))
