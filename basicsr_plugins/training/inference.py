"""Restore an image of any size: padding to the network's multiple, overlapping tiles, self-ensemble.

Every step is exact where the network allows it: an identity network gives its input back bit for bit, whatever the
size, tile and overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple

__all__ = ["Restorer", "own_multiple", "rows_of_tiles", "self_ensemble", "tiled", "whole_image"]

Restore = Callable[[Tensor], Tensor]


class Restorer:
    """A network with everything that stands between it and an arbitrary image.

    Args:
        network: Takes ``(n, c, h, w)``, returns ``(n, c, h * scale, w * scale)``.
        scale: Side of the output over side of the input.
        pad_multiple: Sides are padded to a multiple of this; None takes the windows of its modules (``window_size``,
            as stock SwinIR's blocks have it) and otherwise pads nothing.
        tile: Restore in tiles of this side; None takes the whole image.
        tile_overlap: Overlap of neighbouring tiles.
        ensemble: Average over the eight flips and rotations.

    Raises:
        OptionError: The overlap leaves no progress from tile to tile.

    Example:
        >>> restore = Restorer(nn.Identity(), tile=64, tile_overlap=16)
        >>> image = torch.rand(1, 3, 100, 150)
        >>> torch.equal(restore(image), image)
        True
    """

    def __init__(
        self,
        network: Restore,
        scale: int = 1,
        pad_multiple: Optional[int] = None,
        tile: Optional[int] = None,
        tile_overlap: int = 32,
        ensemble: bool = False,
    ) -> None:
        if tile is not None and tile_overlap * 2 > tile:
            raise OptionError(
                f"val.tile_overlap: {tile_overlap} is more than half of val.tile ({tile}); a tile would be blended "
                "with more than its neighbours. Use a larger tile or a smaller overlap."
            )
        self.network = network
        self.scale = scale
        self.multiple = pad_multiple or own_multiple(network)
        self.tile = tile
        self.tile_overlap = tile_overlap
        self.ensemble = ensemble

    def __call__(self, image: Tensor) -> Tensor:
        """Restore ``image`` (n, c, h, w); gradients are up to the caller."""

        def restore(x: Tensor) -> Tensor:
            return whole_image(self.network, x, self.multiple, self.scale)

        def restore_tiles(x: Tensor) -> Tensor:
            if self.tile is None or max(x.shape[-2:]) <= self.tile:
                return restore(x)
            return tiled(restore, x, self.tile, self.tile_overlap, self.scale)

        return self_ensemble(restore_tiles, image) if self.ensemble else restore_tiles(image)


def own_multiple(network: Restore) -> int:
    """Return what the windows inside a network ask for. Networks of ours pad by themselves."""
    sides: set[Any] = set()
    for module in network.modules() if isinstance(network, nn.Module) else ():
        if not type(module).__module__.startswith("basicsr_plugins."):
            window = getattr(module, "window_size", None)  # stock SwinIR says it in its blocks only
            sides.update(window if isinstance(window, (tuple, list)) else (window,))
    return math.lcm(*(side for side in sides if isinstance(side, int) and side > 0))


def whole_image(network: Restore, image: Tensor, multiple: int = 1, scale: int = 1) -> Tensor:
    """Pad right and bottom by reflection to a multiple, restore, crop.

    Args:
        network: The restoration function.
        image: ``(n, c, h, w)``.
        multiple: What the sides must be a multiple of.
        scale: Side of the output over side of the input.
    """
    height, width = image.shape[-2:]
    return crop_to(network(pad_to_multiple(image, multiple)), height * scale, width * scale)


def tiled(restore: Restore, image: Tensor, tile: int, overlap: int, scale: int = 1) -> Tensor:
    """Restore overlapping tiles and blend them linearly over the overlap.

    The tiles are laid so that the first and the last one end at the image's borders. In the overlap of two neighbours
    the later one fades in, which is exact where both agree.

    Args:
        restore: Maps ``(n, c, tile, tile)`` to ``(n, c, tile * scale, tile * scale)``.
        image: ``(n, c, h, w)``.
        tile: Side of a tile (a side of the image that is shorter is taken whole).
        overlap: Least overlap of neighbouring tiles, at most half a tile.
        scale: Side of the output over side of the input.

    Returns:
        ``(n, c, h * scale, w * scale)``. The ramp takes the middle half of an overlap, so that no pixel is taken from
        within ``overlap / 4`` of a tile's inner border. A network that sees at most ``r`` pixels around a pixel
        therefore gives the whole-image result everywhere with ``overlap >= 4 r`` (up to the rounding of convolutions
        of another size); others differ near the seams.
    """
    rows = list(
        rows_of_tiles(
            lambda top, bottom, left, right: restore(image[..., top:bottom, left:right]),
            (image.shape[-2], image.shape[-1]), tile, overlap, scale,
        )
    )  # fmt: skip
    return rows[0] if len(rows) == 1 else torch.cat(rows, -2)


def rows_of_tiles(
    restore: Callable[[int, int, int, int], Tensor], size: tuple[int, int], tile: int, overlap: int, scale: int = 1
) -> Iterator[Tensor]:
    """Yield what ``tiled`` returns in finished bands of rows, top to bottom, so that no whole image need be in memory.

    Args:
        restore: Maps a tile's place ``(top, bottom, left, right)`` to its restored pixels.
        size: ``(h, w)`` of the image.
        tile: As in ``tiled``.
        overlap: As in ``tiled``.
        scale: As in ``tiled``.
    """

    def finished(spans: list[tuple[int, int]], piece: Callable[[int, int], Tensor], dim: int) -> Iterator[Tensor]:
        held, end = piece(*spans[0]), spans[0][1]
        for start, stop in spans[1:]:
            kept = max(held.shape[dim] - (end - start) * scale, 0)
            yield held.narrow(dim, 0, kept)
            tail = held.narrow(dim, kept, held.shape[dim] - kept)
            held, end = _join(tail, piece(start, stop), (end - start) * scale, dim), stop
        yield held

    def band(top: int, bottom: int) -> Tensor:
        columns = list(finished(_spans(size[1], tile, overlap), lambda *span: restore(top, bottom, *span), -1))
        return columns[0] if len(columns) == 1 else torch.cat(columns, -1)

    return finished(_spans(size[0], tile, overlap), band, -2)


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    if length <= tile:
        return [(0, length)]
    count = -(-(length - overlap) // (tile - overlap))
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    return [(start, start + tile) for start in starts]


def _join(old: Tensor, new: Tensor, shared: int, dim: int) -> Tensor:
    """Append ``new`` to ``old`` along ``dim``; the last ``shared`` pixels of ``old`` lie over the first of ``new``."""
    if shared <= 0:
        return torch.cat([old, new], dim)
    kept = old.shape[dim] - shared
    head, tail = old.narrow(dim, 0, kept), old.narrow(dim, kept, shared)
    start = new.narrow(dim, 0, shared)
    weight = _ramp(shared, new).view([-1] + [1] * (-1 - dim))
    # lerp gives either end to the last bit
    return torch.cat([head, torch.lerp(tail, start, weight), new.narrow(dim, shared, new.shape[dim] - shared)], dim)


def _ramp(length: int, like: Tensor) -> Tensor:
    """Weights from 0 to 1 over the middle half: the outer quarters are nearest to a tile's border."""
    position = (torch.arange(length, dtype=torch.float32, device=like.device) + 0.5) / length
    return ((position - 0.25) * 2).clamp(0, 1).to(like.dtype)


def self_ensemble(restore: Restore, image: Tensor) -> Tensor:
    """Average the restored images over the four rotations, each with and without a horizontal flip.

    Args:
        restore: The restoration function.
        image: ``(n, c, h, w)``.
    """

    def restored(flip: bool, turns: int) -> Tensor:
        view = torch.rot90(image.flip(-1) if flip else image, turns, (-2, -1))
        back = torch.rot90(restore(view), -turns, (-2, -1))
        return back.flip(-1) if flip else back

    # in pairs: the sum of eight equal numbers is then exact
    halves = [
        (restored(flip, 0) + restored(flip, 2)) + (restored(flip, 1) + restored(flip, 3)) for flip in (False, True)
    ]
    return (halves[0] + halves[1]) / 8
