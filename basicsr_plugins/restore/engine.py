"""A network in front of pixels of any number: tiles as large as memory allows, halved when it does not after all."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from typing import Optional

import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import CheckpointError, DataError, DependencyError, OptionError
from basicsr_plugins.core.precision import autocast_dtype
from basicsr_plugins.restore.memory import DECENT, STEP, bytes_per_pixel, free_memory, largest_tile, out_of_memory
from basicsr_plugins.training.inference import own_multiple, rows_of_tiles, self_ensemble, whole_image

__all__ = ["Engine", "choose_device"]

_logger = logging.getLogger("basicsr")
_PROBE = 64
Read = Callable[[int, int, int, int], Tensor]
#: Called for each finished band of rows: where it begins, and its pixels.
Write = Callable[[int, Tensor], None]


def choose_device(name: str = "auto") -> torch.device:
    """Return a device by its name; ``auto`` is the GPU where there is one.

    Raises:
        OptionError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise OptionError(f"--device: {name!r} cannot be used here ({reason}); 'cpu' always can.") from error
    return device


class Engine:
    """Restores anything that can be read tile by tile.

    Args:
        network: Takes (n, c, h, w) in [0, 1], and as second argument what ``run`` is given as ``weights``, if any.
        device: Where it runs.
        tile: Side of the tiles; 0 takes whole images, None what fits into the free memory.
        overlap: Of neighbouring tiles.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        ensemble: Average over the eight flips and rotations of each tile.

    Raises:
        OptionError: An argument is wrong.
        CheckpointError: The network takes or gives no images.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        tile: Optional[int] = None,
        overlap: int = 32,
        precision: str = "fp32",
        ensemble: bool = False,
    ) -> None:
        if tile is not None and tile != 0 and tile < STEP:
            raise OptionError(f"--tile: must be 0 (the whole picture) or at least {STEP} pixels, got {tile}.")
        if overlap < 0 or (tile and overlap * 2 > tile):
            raise OptionError(f"--tile-overlap: must lie between 0 and half of the tile ({tile}), got {overlap}.")
        self.dtype = autocast_dtype(precision, "--precision")
        if precision == "fp16" and device.type == "cpu":
            raise OptionError("--precision: fp16 needs a GPU; use bf16 or fp32 on the CPU.")
        self.network, self.device = network.to(device).eval(), device
        self.tile, self.overlap, self.ensemble = tile, overlap, ensemble
        self.multiple = own_multiple(network)
        self.channels, self.scale, self.per_pixel = self._probe()

    def run(
        self, read: Read, size: tuple[int, int], write: Write, weights: Optional[Tensor] = None, images: int = 1
    ) -> None:
        """Restore an image of ``size`` (h, w), band by band; begun anew with smaller tiles where memory runs out.

        Args:
            read: Returns the pixels of a tile (top, bottom, left, right) as (n, c, h, w) in [0, 1].
            size: Height and width.
            write: Takes each finished band of rows, float32 in [0, 1] on the CPU or the device.
            weights: The adapters' weights, for a ``BlendedNetwork``.
            images: How many images ``read`` returns at once.

        Raises:
            DataError: Not even the smallest tile fits into memory, or the result is not finite.
        """
        tile = self._tile_for(size, images)
        while True:
            try:
                self._run(read, size, write, weights, tile)
                return
            except (RuntimeError, MemoryError) as error:  # typed errors of ours among them
                if not out_of_memory(error):
                    raise
            gc.collect()  # outside of the handler, whose traceback holds the tensors
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            smaller = min(tile, max(size)) // 2 // STEP * STEP
            if smaller < STEP:
                raise DataError(f"there is not enough memory on {self.device} for a tile of {tile} pixels.")
            _logger.warning("Memory ran out on %s at %d pixels; tiles of %d from here on.", self.device, tile, smaller)
            tile = self.tile = smaller  # for the pictures that follow too

    @torch.inference_mode()
    def _run(self, read: Read, size: tuple[int, int], write: Write, weights: Optional[Tensor], tile: int) -> None:
        def restore(top: int, bottom: int, left: int, right: int) -> Tensor:
            return self._tile(read(top, bottom, left, right).to(self.device), weights)

        row = 0
        overlap = min(self.overlap, tile // 2)
        for band in rows_of_tiles(restore, size, tile, overlap, self.scale):
            if band.shape[-2]:
                write(row, band)
                row += band.shape[-2]

    def _tile(self, pixels: Tensor, weights: Optional[Tensor]) -> Tensor:
        def forward(x: Tensor) -> Tensor:
            with self._autocast():
                result: Tensor = self.network(x) if weights is None else self.network(x, weights)
            return result.float()

        def restore(x: Tensor) -> Tensor:
            return whole_image(forward, x, self.multiple, self.scale)

        restored = self_ensemble(restore, pixels) if self.ensemble else restore(pixels)
        if not bool(torch.isfinite(restored).all()):
            raise DataError(
                "the network's output is not finite (NaN or infinite)."
                + ("" if self.dtype is None else " Use --precision fp32.")
            )
        return restored.clamp_(0, 1)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _tile_for(self, size: tuple[int, int], images: int) -> int:
        if self.tile is not None:
            return self.tile or max(size)
        whole = max(STEP, *size)
        on_cpu = self.device.type == "cpu"
        side = largest_tile(self.per_pixel * images, free_memory(self.device), modest=on_cpu)
        if size[0] * size[1] <= side**2:
            return whole
        return min(side, DECENT) if on_cpu else side  # about twice as fast as 1344 on a CPU, whose caches are small

    @torch.inference_mode()
    def _probe(self) -> tuple[int, int, float]:
        """Return the channels the network takes, its scale, and what a pixel costs, from one small forward pass."""
        name = type(self.network).__name__
        result, per_pixel, channels, problem = None, 0.0, 3, ""
        for channels in _channels_to_try(self.network):
            probe = torch.full((1, channels, _PROBE, _PROBE), 0.5, device=self.device)
            answers: list[object] = []
            try:
                with self._autocast():
                    per_pixel = bytes_per_pixel(lambda x: answers.append(self.network(x)), probe)  # noqa: B023
            except (RuntimeError, TypeError, ValueError, DependencyError) as error:
                problem = f" ({str(error).splitlines()[0]})"
                continue
            result = answers[0]
            break
        if not isinstance(result, Tensor) or result.dim() != 4 or result.shape[1] != channels:
            raise CheckpointError(f"{name} does not restore pictures: it maps no RGB or grey image to one{problem}.")
        scale = result.shape[-1] // _PROBE
        if scale < 1 or result.shape[-2:] != (_PROBE * scale, _PROBE * scale):
            raise CheckpointError(
                f"{name} maps {_PROBE} x {_PROBE} pixels to {result.shape[-1]} x {result.shape[-2]}: its output is no "
                "whole multiple of its input."
            )
        return channels, scale, per_pixel * (1 + 0.5 * self.ensemble)


def _channels_to_try(network: nn.Module) -> Iterator[int]:
    first = next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)
    yield 1 if first == 1 else 3
    yield 3 if first == 1 else 1
