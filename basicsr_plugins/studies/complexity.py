"""How complex is a set of images? Backgrounds and rain layers by the same measures (arXiv 2305.15134, section 4).

The papers find that a network learns whichever is simpler, the background or the degradation. Their own measure is
not public; these three need no weights, and a network of the user's can be added.
"""

from __future__ import annotations

import importlib
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import cv2
import numpy as np

from basicsr_plugins.core.errors import DataError, OptionError, one_of
from basicsr_plugins.data.files import image_files
from basicsr_plugins.data.images import read_image, to_float
from basicsr_plugins.degradations.rain_degradation import RAIN_PRESETS, Rain

__all__ = [
    "MEASURES",
    "SetComplexity",
    "compressed_size",
    "entropy",
    "gradient",
    "load_scorer",
    "measure_layers",
    "measure_set",
    "rain_layers",
    "tiles",
]

#: A user's measure: an RGB image, float32 (h, w, 3) in [0, 1], to a number.
Scorer = Callable[[np.ndarray], float]
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def luma(image: np.ndarray) -> np.ndarray:
    """Return the 8-bit luma (h, w) of an RGB image (h, w, 3), or of a layer (h, w), both float in [0, 1]."""
    grey = image @ _LUMA if image.ndim == 3 else image
    return np.clip(np.round(grey * 255), 0, 255).astype(np.uint8)


def compressed_size(image: np.ndarray) -> float:
    """Return the bytes per pixel that the image's luma takes in a PNG (strongest compression, header included)."""
    grey = luma(image)
    _, data = cv2.imencode(".png", grey, [cv2.IMWRITE_PNG_COMPRESSION, zlib.Z_BEST_COMPRESSION])
    return len(data) / grey.size


def gradient(image: np.ndarray) -> float:
    """Return the mean magnitude of the Sobel gradient of the luma, luma in [0, 1], per pixel."""
    grey = luma(image).astype(np.float32) / 255
    # Sobel's weights sum to 8 for a step of two pixels
    across, down = (
        cv2.Sobel(grey, cv2.CV_32F, *order, borderType=cv2.BORDER_REFLECT_101) / 8 for order in ((1, 0), (0, 1))
    )
    return float(np.hypot(across, down).mean())


def entropy(image: np.ndarray) -> float:
    """Return the entropy, in bits, of the joint histogram of a pixel's luma and its 3 x 3 mean (64 levels each).

    64 levels: with 256, a 128 x 128 tile would fill at most a quarter of the histogram.
    """
    grey = luma(image)
    mean = cv2.blur(grey, (3, 3), borderType=cv2.BORDER_REFLECT_101)
    joint = (grey // 4).astype(np.int64) * 64 + mean // 4
    share = np.bincount(joint.ravel(), minlength=64 * 64) / grey.size
    share = share[share > 0]
    return float(abs((share * np.log2(share)).sum()))


#: The built-in measures by column name.
MEASURES: dict[str, Scorer] = {"compressed": compressed_size, "gradient": gradient, "entropy": entropy}


@dataclass
class SetComplexity:
    """The complexity of one set.

    Attributes:
        name: The folder's name or the rain preset.
        kind: ``background`` or ``rain``.
        values: For each measure, the value of every tile or layer, in order.
    """

    name: str
    kind: str
    values: dict[str, list[float]]

    @property
    def count(self) -> int:
        """Number of tiles or layers."""
        return len(next(iter(self.values.values())))

    def row(self) -> dict[str, Any]:
        """Return the set's line of the table: means, and log2 of the number, which counts as an axis of its own."""
        means = {name: float(np.mean(values)) for name, values in self.values.items()}
        return {"set": self.name, "kind": self.kind, "count": self.count, "log2_count": math.log2(self.count), **means}


def tiles(image: np.ndarray, side: Optional[int]) -> Iterator[np.ndarray]:
    """Yield the tiles (side, side, 3) of an image without overlap, or the image itself where ``side`` is None.

    The grid is centred; what does not fill a tile is left out.
    """
    if side is None:
        yield image
        return
    height, width = image.shape[:2]
    for top in range(height % side // 2, height - side + 1, side):
        for left in range(width % side // 2, width - side + 1, side):
            yield image[top : top + side, left : left + side]


def measure_set(
    folder: str | Path,
    tile: Optional[int] = 128,
    scorer: Optional[Scorer] = None,
    recursive: bool = False,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> SetComplexity:
    """Measure every tile of every image of a folder.

    Args:
        folder: The images.
        tile: Side of the tiles, so that sets of different image size compare; None takes whole images.
        scorer: A further measure, which becomes the column ``network``.
        recursive: Look into sub-folders too.
        progress: Wraps the list of files, for a progress bar.

    Raises:
        DataError: No folder, no image, or no image as large as a tile.
    """
    files = image_files(folder, "complexity", recursive)
    images = (to_float(read_image(path)) for path in progress(files))
    values = _measure((part for image in images for part in tiles(image, tile)), scorer)
    if not next(iter(values.values())):
        raise DataError(f"complexity: no image in {folder} is {tile} x {tile} or larger; use a smaller tile.")
    return SetComplexity(Path(folder).name, "background", values)


def measure_layers(preset: str, side: int, count: int, seed: int = 0, scorer: Optional[Scorer] = None) -> SetComplexity:
    """Measure rain layers beta R of one preset by the same measures.

    Args:
        preset: ``small`` | ``medium`` | ``large`` | ``random``.
        side: Side of the canvas; use the backgrounds' tile, since a layer's brightness depends on it.
        count: Number of layers.
        seed: Seed of the draws.
        scorer: A further measure.
    """
    return SetComplexity(f"rain {preset}", "rain", _measure(rain_layers(preset, side, count, seed), scorer))


def rain_layers(preset: str, side: int, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield rain layers beta R, RGB float32 (side, side, 3).

    Raises:
        OptionError: There is no such preset.
    """
    if preset not in RAIN_PRESETS:
        raise OptionError(f"rain: {one_of(preset, RAIN_PRESETS, 'preset')}")
    rain = Rain.from_options({"preset": preset}, "rain")
    black = np.zeros((side, side, 3), dtype=np.float32)
    for index in range(count):
        layer = rain(black, np.random.default_rng([seed, index])).layers["rain"]
        yield np.clip(np.repeat(layer[..., None], 3, axis=2) if layer.ndim == 2 else layer, 0, 1)


def load_scorer(name: str) -> Scorer:
    """Return the user's measure ``module:function``, for example one that runs a complexity network such as ICNet.

    The function takes an RGB image, float32 (h, w, 3) in [0, 1], and returns a number.

    Raises:
        OptionError: The module cannot be imported or has no such function.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise OptionError(f"network: expected module:function, got {name!r}.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise OptionError(f"network: {module_name} cannot be imported: {error}.") from error
    scorer = getattr(module, attribute, None)
    if not callable(scorer):
        raise OptionError(
            f"network: {one_of(attribute, [n for n in vars(module) if callable(getattr(module, n))], 'function')}"
        )
    return scorer


def _measure(images: Iterable[np.ndarray], scorer: Optional[Scorer]) -> dict[str, list[float]]:
    measures = {**MEASURES, **({"network": scorer} if scorer else {})}
    values: dict[str, list[float]] = {name: [] for name in measures}
    for image in images:
        for name, measure in measures.items():
            values[name].append(float(measure(image)))
    return values
