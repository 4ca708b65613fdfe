"""Depth maps beside the clean images, for haze."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.data.files import first_few, image_files
from basicsr_plugins.data.image_store import ImageStore
from basicsr_plugins.data.images import read_image
from basicsr_plugins.data.patches import Patch, cut_float

__all__ = ["DepthMaps"]


class DepthMaps:
    """Grey images whose stems are those of the clean images; full scale is 1.

    Args:
        paths: One per clean image.
        far_is_white: False turns the maps over (inverse depth, as most monocular estimators give it).
    """

    def __init__(self, paths: list[str], far_is_white: bool) -> None:
        self.paths = paths
        self.far_is_white = far_is_white

    @classmethod
    def from_options(cls, options: Any, store: ImageStore, where: str) -> DepthMaps | None:
        """Return the maps that ``dataroot_depth`` names, or None.

        Raises:
            DataError: An image has no map.
        """
        if options.dataroot_depth is None:
            return None
        files = image_files(options.dataroot_depth, f"{where}.dataroot_depth", recursive=True)
        maps: dict[str, list[str]] = {}
        for path in files:
            maps.setdefault(path.stem, []).append(str(path))
        wanted = [Path(path).stem for path in store.paths]
        missing = [path for path, stem in zip(store.paths, wanted) if stem not in maps]
        if missing:
            names = first_few(missing)
            raise DataError(f"{where}.dataroot_depth: {len(missing)} image(s) without a depth map: {names}.")
        twins = [" or ".join(maps[stem][:2]) for stem in dict.fromkeys(wanted) if len(maps[stem]) > 1]
        if twins:
            raise DataError(
                f"{where}.dataroot_depth: {len(twins)} image(s) with several depth maps of their name: "
                f"{first_few(twins)}. Take one of them away."
            )
        return cls([maps[stem][0] for stem in wanted], options.depth_far == "white")

    def read(self, position: int, size: tuple[int, int], patch: Patch) -> np.ndarray:
        """Return the patch of one map, float32 ``(h, w)`` in [0, 1], 1 far away."""
        image = read_image(self.paths[position])
        depth = image[:, :, 0].astype(np.float32) / np.float32(65535.0 if image.dtype == np.uint16 else 255.0)
        if depth.shape != size:
            depth = cv2.resize(depth, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        depth = cut_float(depth, patch)
        return depth if self.far_is_white else np.float32(1.0) - depth
