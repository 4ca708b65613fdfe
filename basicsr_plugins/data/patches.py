"""Cut the same patch from one or several images, turn it, and make tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np
import torch

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.data.images import to_float
from basicsr_plugins.data.loader_options import PatchOptions

__all__ = ["Patch", "as_tensor", "choose_patch", "cut", "cut_float"]


@dataclass(frozen=True)
class Patch:
    """A window of an image and how it is turned. ``pad`` is mirrored at the bottom and at the right before cutting."""

    top: int
    left: int
    height: int
    width: int
    pad: tuple[int, int] = (0, 0)
    hflip: bool = False
    vflip: bool = False
    swap: bool = False


def choose_patch(size: Sequence[int], options: PatchOptions, rng: np.random.Generator, name: str) -> Patch:
    """Choose the window for an image of ``size`` (h, w): random and turned in training, else centred or whole.

    Raises:
        DataError: The image is smaller than the crop and ``pad_small`` is off.
    """
    height, width = int(size[0]), int(size[1])
    if min(height, width) < 1:  # mirroring nothing never ends in OpenCV
        raise DataError(f"{name}: {height} x {width} (h x w), there is nothing to cut from.")
    crop, train = options.crop, options.phase == "train"
    if crop is None:
        unit = options.multiple_of
        if min(height, width) < unit:
            raise DataError(f"{name}: {height} x {width} (h x w) is smaller than multiple_of {unit}.")
        return Patch(0, 0, height // unit * unit, width // unit * unit)
    pad = (max(0, crop - height), max(0, crop - width))
    if any(pad) and not options.pad_small:
        raise DataError(
            f"{name}: the image is {height} x {width} (h x w), smaller than gt_size {crop}. Take it "
            "out, lower gt_size, or set 'pad_small: true' to mirror its edges."
        )
    free = height + pad[0] - crop, width + pad[1] - crop
    if not train:
        return Patch(free[0] // 2, free[1] // 2, crop, crop, pad)
    draws = rng.random(5)  # always five, so that switching a flip off does not shift the draws that follow
    return Patch(
        int(draws[0] * (free[0] + 1)), int(draws[1] * (free[1] + 1)), crop, crop, pad,
        bool(options.use_hflip and draws[2] < 0.5),
        bool(options.use_rot and draws[3] < 0.5),
        bool(options.use_rot and draws[4] < 0.5),
    )  # fmt: skip


def cut(image: np.ndarray, patch: Patch) -> np.ndarray:
    """Return the patch of a decoded BGR image as float32 RGB ``(h, w, 3)`` in [0, 1]."""
    return _turn(to_float(_window(image, patch)), patch)


def cut_float(image: np.ndarray, patch: Patch) -> np.ndarray:
    """Return the patch of an array ``(h, w, ...)`` that is no picture (a depth map, a mask), unchanged in type."""
    return _turn(_window(image, patch), patch)


def _window(image: np.ndarray, patch: Patch) -> np.ndarray:
    if any(patch.pad):
        # only the mirrored part that the window needs matters, and copyMakeBorder repeats the mirror on tiny images
        bottom, right = patch.pad
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    return image[patch.top : patch.top + patch.height, patch.left : patch.left + patch.width]


def _turn(image: np.ndarray, patch: Patch) -> np.ndarray:
    if patch.hflip:
        image = image[:, ::-1]
    if patch.vflip:
        image = image[::-1]
    if patch.swap:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image)


def as_tensor(
    image: np.ndarray, mean: Optional[Sequence[float]] = None, std: Optional[Sequence[float]] = None
) -> torch.Tensor:
    """Return ``(h, w, 3)`` as a float32 tensor ``(3, h, w)``, normalised as BasicSR does where asked."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    if mean is not None:
        tensor -= torch.tensor(mean).view(3, 1, 1)
    if std is not None:
        tensor /= torch.tensor(std).view(3, 1, 1)
    return tensor
