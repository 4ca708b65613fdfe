"""Rain on a controlled number of backgrounds: the data of the deraining-generalization studies."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional, Union

import numpy as np

from basicsr_plugins.core.checked import CheckedSection, result_of
from basicsr_plugins.core.errors import DataError
from basicsr_plugins.core.options import option, positive
from basicsr_plugins.core.registration import provides
from basicsr_plugins.data.degradation_dataset import DegradationDataset, DegradationPlan, open_clean
from basicsr_plugins.data.image_store import ImageStore
from basicsr_plugins.data.loader_options import parse_dataset
from basicsr_plugins.data.ram_cache import RamCache, cached

__all__ = ["RainSynthesisDataset", "TileStore", "nested_subset"]

_logger = logging.getLogger("basicsr")


def nested_subset(total: int, count: int | None, seed: int) -> list[int]:
    """Return ``count`` of ``range(total)``: the first ones of a shuffle, so that smaller subsets lie in larger ones."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(total).tolist()
    return order if count is None else order[:count]


@provides("dataset")
class RainSynthesisDataset(DegradationDataset):
    """Synthetic rain on N backgrounds (arXiv 2305.15134, 2502.12600): how many, how complex, how wide the rain range.

    Backgrounds are cut into tiles of equal size first, so that N counts tiles; the tiles are sorted, shuffled by
    ``subset_seed``, and the first N are used: a smaller subset lies inside a larger one. Rain is made at the size of
    the tile, because the generator's brightness depends on its canvas. In training tiles are turned, never cut again.

    Samples are those of ``DegradationDataset``; ``rain_mask`` is always there.

    Example::

        train:
          name: celeba_64_medium
          type: RainSynthesisDataset
          dataroot_gt: datasets/CelebA/train
          num_backgrounds: 64
          tile: centre
          rain: {preset: medium}
    """

    @dataclass
    class Options(DegradationDataset.Options):
        """Options of RainSynthesisDataset, besides those of DegradationDataset but for ``degradations``."""

        REQUIRED: ClassVar[tuple[str, ...]] = ("dataroot_gt",)

        num_backgrounds: Optional[int] = option(None, "tiles used; all if left out", check=positive)
        subset_seed: int = option(0, "of the shuffle that the subsets are taken from")
        tile_size: int = option(128, "side of a tile, pixels", check=positive)
        tile: Literal["grid", "centre", "none"] = option(
            "grid", "all tiles that fit, one from the centre of each image (faces), or whole images cut at random"
        )
        rain: Union[dict[str, Any], list[Any]] = option({}, "options of Rain, or a list of them to draw from")
        label: int = option(0, "returned as 'degradation'")

        def idle(self) -> dict[str, str]:
            """Return what does nothing beside the other options; a mask is always returned."""
            found = super().idle()
            found.pop("mask_threshold", None)
            found["degradations"] = "rain is the one degradation, and the option `rain` says which"
            if self.tile == "none":
                found["tile_size"] = "whole images are used"
            elif self.gt_size != self.tile_size:
                found["gt_size"] = "samples have the side tile_size"
            return found

    def __init__(self, opt: Mapping[str, Any]) -> None:
        plan = result_of(opt, RainPlan) or self.plan(opt)
        super().__init__(CheckedSection(opt, plan))
        self.opt = {**opt, "name": opt.get("name", "rain")}
        store = self.store.store if isinstance(self.store, RamCache) else self.store
        self.store = cached(_tiles(store, plan.options, plan.where), plan.options)

    @classmethod
    def plan(cls, opt: Mapping[str, Any], where: Optional[str] = None) -> RainPlan:
        """Return the plan that these options describe.

        Raises:
            OptionError: A wrong option.
        """
        options, where = parse_dataset(cls.Options, opt, where)
        rain = options.rain if isinstance(options.rain, list) else [options.rain]
        entry = {"type": "Rain", **rain[0]} if len(rain) == 1 else {
            "type": "RandomChoice", "choices": [{"type": "Rain", **item} for item in rain]
        }  # fmt: skip
        options.degradations = [{**entry, "label": options.label, "name": "rain"}]
        options.return_mask = True
        if options.tile != "none":
            options.gt_size = options.tile_size
        return RainPlan(options, where)


class RainPlan(DegradationPlan):
    """One degradation, rain, on tiles of the backgrounds."""

    def check(self) -> None:
        """Check the images, and that they give as many tiles as are wanted."""
        super().check()
        if self.options.tile != "none":
            _tiles(open_clean(self.options, self.where), self.options, self.where)


class TileStore(ImageStore):
    """Tiles of the images of another store.

    Args:
        store: The images.
        tiles: (position of the image, top, left) of each tile.
        side: Of a tile, pixels.
    """

    def __init__(self, store: ImageStore, tiles: list[tuple[int, int, int]], side: int) -> None:
        names = [f"{store.paths[position]}[{top}:{left}]" for position, top, left in tiles]
        super().__init__(names, sizes=[(side, side)] * len(tiles))
        self.store, self.tiles, self.side = store, tiles, side

    def read(self, position: int) -> np.ndarray:
        """Return one tile, BGR ``(side, side, 3)``."""
        image, top, left = self.tiles[position]
        tile = self.store.read(image)[top : top + self.side, left : left + self.side]
        if tile.shape[:2] != (self.side, self.side):
            raise DataError(
                f"{self.paths[position]}: the tile of {self.side} pixels leaves the image; its recorded size is wrong "
                "(an lmdb's meta_info.txt), or the file has changed since training started."
            )
        return tile

    def bytes_per_value(self, position: int) -> int:
        """Return 2 for a tile of 16 bits, else 1."""
        return self.store.bytes_per_value(self.tiles[position][0])


def _tiles(store: ImageStore, options: Any, where: str) -> ImageStore:
    side = options.tile_size
    if options.tile == "none":
        chosen = nested_subset(len(store), options.num_backgrounds, options.subset_seed)
        _enough(len(store), options.num_backgrounds, "images", where)
        return ImageStore([store.paths[position] for position in chosen], store.lmdb_root)
    tiles, small = [], 0
    for position in range(len(store)):
        height, width = store.size(position)
        small += min(height, width) < side
        if options.tile == "centre":
            if min(height, width) >= side:
                tiles.append((position, (height - side) // 2, (width - side) // 2))
            continue
        tiles += [
            (position, top, left)
            for top in range(0, height - side + 1, side)
            for left in range(0, width - side + 1, side)
        ]
    if small:  # let through by pad_small, which mirrors crops; a tile of mirrored edges would be no background
        _logger.warning("%s: %d of %d images are smaller than a tile and give none.", where, small, len(store))
    _enough(len(tiles), options.num_backgrounds, f"tiles of {side} pixels", where)
    chosen = nested_subset(len(tiles), options.num_backgrounds, options.subset_seed)
    return TileStore(store, [tiles[number] for number in chosen], side)


def _enough(found: int, wanted: int | None, what: str, where: str) -> None:
    if found == 0 or (wanted or 0) > found:
        raise DataError(f"{where}.num_backgrounds: {wanted or 'some'} wanted, the images give {found} {what}.")
