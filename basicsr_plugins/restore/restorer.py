"""``load_restorer``: a model in three lines of Python, for arrays, PIL images and tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from basicsr_plugins.adapters import BlendedNetwork
from basicsr_plugins.adapters.modes import keep_clean
from basicsr_plugins.core.errors import DataError, OptionError, one_of
from basicsr_plugins.restore.engine import Engine, choose_device
from basicsr_plugins.restore.find_model import Model, find_model
from basicsr_plugins.restore.weighing import WINDOW, Weigher, fixed_weights, windows_of

__all__ = ["ImageRestorer", "enlarged", "load_restorer"]


def load_restorer(
    model: Union[str, Path, None] = None,
    *,
    device: str = "auto",
    tile: Optional[int] = None,
    tile_overlap: int = 32,
    precision: str = "fp32",
    self_ensemble: bool = False,
    weights: Union[str, Mapping[str, float], None] = None,
    base: Union[str, Path, None] = None,
    estimator: Union[str, Path, None] = None,
) -> ImageRestorer:
    """Return a restorer: call it with an image, get the restored image of the same kind.

    Args:
        model: A file of weights (ours, or a published one, which is recognised), the folder of a training run, an
            adapter folder, a folder of adapter folders (ABAIR), a name that ``basicsr-plugins models`` lists
            (``nafnet_gopro_w32``, fetched the first time), or ``hf://user/repository``.
        device: ``auto`` (the GPU where there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
        tile: Restore in tiles of this side; 0 takes whole images; None takes what fits into the free memory.
        tile_overlap: Overlap of neighbouring tiles, pixels of the input.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        self_ensemble: Average over the eight flips and rotations: eight times the time.
        weights: Of several adapters: ``{"rain": 0.7, "haze": 0.3}``, or one adapter's name; None asks the estimator.
        base: The base network of adapters, where it is not at its recorded place.
        estimator: The weights of the estimator, where they do not lie beside the adapters.

    Raises:
        OptionError: An argument is wrong, or there is no such model.
        CheckpointError: A file cannot be used.
        DependencyError: The weights of a name cannot be fetched.

    Example:
        >>> import numpy as np, tempfile
        >>> from basicsr_plugins import checkpoints, load_restorer
        >>> from basicsr_plugins.archs.nafnet_arch import NAFNet
        >>> arguments = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = f"{folder.name}/net_g_latest.safetensors"
        >>> checkpoints.write(file, NAFNet(**arguments).state_dict(), {"type": "NAFNet", **arguments})

        >>> restore = load_restorer(file, device="cpu")
        >>> restored = restore(np.zeros((40, 60, 3), np.uint8))
        >>> restored.shape, restored.dtype
        ((40, 60, 3), dtype('uint8'))
        >>> folder.cleanup()
    """
    found = find_model(model, base, estimator)
    return ImageRestorer(found, choose_device(device), tile, tile_overlap, precision, self_ensemble, weights)


class ImageRestorer:
    """A model that restores images of any size and kind. Made by ``load_restorer``.

    * NumPy ``(h, w, 3)`` RGB, ``(h, w)`` grey or ``(h, w, 4)`` with alpha: uint8, uint16, or floats in [0, 1];
    * a PIL image (of 8 bits; modes L, LA, RGB, RGBA, and others as RGB);
    * a tensor ``(n, 3, h, w)`` or ``(3, h, w)`` in [0, 1], on any device;
    * a list of any of these.

    The result is of the same kind, type and device, clipped to [0, 1]; alpha is passed on.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        tile: Optional[int] = None,
        tile_overlap: int = 32,
        precision: str = "fp32",
        self_ensemble: bool = False,
        weights: Union[str, Mapping[str, float], None] = None,
    ) -> None:
        names = model.adapters
        if weights is not None and not names:
            raise OptionError("--weights, --only: they belong to a model of several adapters; this one has none.")
        if isinstance(weights, str):
            if weights not in names:
                raise OptionError(f"--only: {one_of(weights, names, 'adapter')}")
            weights = {weights: 1.0}
        self.model = model
        self.fixed = None if weights is None else fixed_weights(weights, names)
        self.weigher: Optional[Weigher] = None
        if model.estimator is not None:
            self.weigher = Weigher(model.estimator.to(device).eval(), names, model.rule)
        if names and self.fixed is None and self.weigher is None:
            raise OptionError(
                f"{model.label}: several adapters and no estimator that weighs them. Give --estimator net_e_latest.pth "
                f"(of AdapterBlendModel), --only {names[0]}, or --weights {names[0]}=0.7,{names[1]}=0.3."
            )
        network = model.network
        if self.fixed is not None and isinstance(network, BlendedNetwork):
            network = network.merged(self.fixed)  # costs what the base costs
        self.engine = Engine(network, device, tile, tile_overlap, precision, self_ensemble)

    @property
    def scale(self) -> int:
        """Side of the output over side of the input."""
        return self.engine.scale

    def __call__(self, image: Any) -> Any:
        """Restore one image, or a list of images.

        Raises:
            DataError: It is no image that can be restored.
        """
        if isinstance(image, (list, tuple)):
            return [self(each) for each in image]
        if isinstance(image, Image.Image):
            return self._pil(image)
        if isinstance(image, Tensor):
            return self._tensor(image)
        if isinstance(image, np.ndarray):
            return self._array(image)
        raise DataError(f"expected a NumPy array, a PIL image or a tensor, got {type(image).__name__}.")

    def look(self, pixels: np.ndarray) -> dict[str, float]:
        """Return what the estimator sees in an image ``(h, w, 3)``: ``{"rain": 0.8, "haze": 0.2}``, largest first.

        Raises:
            OptionError: The model has no estimator.
        """
        if self.weigher is None:
            raise OptionError("this model has no estimator, so it cannot say which degradations it sees.")
        read = _reader(_checked(pixels), self.engine.channels)
        windows = windows_of(pixels.shape[0], pixels.shape[1])
        return self.weigher.seen([read(*window).to(self.engine.device) for window in windows])

    def map(self, pixels: np.ndarray, cell: int = 32) -> Tensor:
        """Return the adapters' weights per region of an image ``(h, w, 3)``: (K, rows, columns).

        Each window of at most 512 pixels is judged by itself.

        Raises:
            OptionError: The model has no estimator.
        """
        if self.weigher is None:
            raise OptionError("--map: this model has no estimator, so it cannot say which degradations are where.")
        read, weigher = _reader(_checked(pixels), self.engine.channels), self.weigher
        height, width = pixels.shape[:2]
        rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
        result = torch.zeros(len(weigher.names), rows, columns)
        step = WINDOW // cell
        for top in range(0, rows, step):
            for left in range(0, columns, step):
                bottom, right = min(top + step, rows), min(left + step, columns)
                place = (
                    top * height // rows, bottom * height // rows, left * width // columns, right * width // columns
                )  # fmt: skip
                part = weigher.maps(read(*place).to(self.engine.device), cell)
                size = (bottom - top, right - left)
                result[:, top:bottom, left:right] = torch.nn.functional.adaptive_avg_pool2d(part, size)
        return result

    def restore_pixels(
        self,
        pixels: np.ndarray,
        seen: Optional[Mapping[str, float]] = None,
        progress: Optional[Callable[[int], None]] = None,
    ) -> np.ndarray:
        """Restore ``(h, w, 1 or 3)`` without ever holding the whole image as floats.

        Args:
            pixels: uint8, uint16 or floats.
            seen: What ``look`` returned, where it was asked before.
            progress: Told after each band of rows how many rows of the input are done.
        """
        pixels = _checked(pixels)
        height, width, colours = pixels.shape
        read = _reader(pixels, self.engine.channels)
        if self.engine.channels == 1 and colours == 3:
            raise DataError("this network restores grey pictures only, and this one is in colour.")
        scale = self.scale
        result = np.empty((height * scale, width * scale, colours), pixels.dtype)
        weights, kept = self._weights(pixels, seen)

        def write(row: int, band: Tensor) -> None:
            if kept is not None:
                band = keep_clean(band, read(row, row + band.shape[-2], 0, width).to(band.device), kept)
            grey = colours == 1 and band.shape[1] == 3
            # in double precision the mean of three equal numbers is that number
            rows = band[0].double().mean(dim=0, keepdim=True).float() if grey else band[0]
            result[row : row + rows.shape[1]] = _from_unit(rows, pixels.dtype)
            if progress is not None:
                progress((row + rows.shape[1]) // scale)

        self.engine.run(read, (height, width), write, weights)
        return result

    def _weights(
        self, pixels: np.ndarray, seen: Optional[Mapping[str, float]]
    ) -> tuple[Optional[Tensor], Optional[Tensor]]:
        """Return the adapters' weights for a picture ``(h, w, 3)``, and how much of it stays as it is."""
        if self.weigher is None or self.fixed is not None:
            return None, None
        weights, kept = self.weigher.blend(self.look(pixels) if seen is None else seen)
        if self.scale != 1 or (kept is not None and not kept.any()):
            kept = None
        return weights.to(self.engine.device), kept

    def _array(self, image: np.ndarray) -> np.ndarray:
        if image.ndim == 2:
            return self.restore_pixels(image[:, :, None])[:, :, 0]
        if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4):
            raise DataError(
                f"expected an array (h, w), (h, w, 3) or (h, w, 4), got {image.shape}. A batch is a list of arrays."
            )
        colours = image.shape[2] - (image.shape[2] + 1) % 2
        restored = self.restore_pixels(image[:, :, :colours])
        if colours == image.shape[2]:
            return restored
        return np.concatenate([restored, enlarged(image[:, :, -1], self.scale)[:, :, None]], axis=2)

    def _pil(self, image: Image.Image) -> Image.Image:
        if image.mode in ("F", "I") or image.mode.startswith("I;"):
            raise DataError(f"a PIL image of mode {image.mode}: give a uint16 or float NumPy array instead.")
        converted = image if image.mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")
        return Image.fromarray(self._array(np.asarray(converted)))

    def _tensor(self, image: Tensor) -> Tensor:
        batch = image.unsqueeze(0) if image.dim() == 3 else image
        channels = self.engine.channels
        if batch.dim() != 4 or batch.shape[1] != channels or not batch.is_floating_point():
            raise DataError(
                f"expected a float tensor (n, {channels}, h, w) or ({channels}, h, w) in [0, 1], got {image.dtype} of "
                f"shape {tuple(image.shape)}."
            )
        results = []
        for each in batch.detach():
            _check_range(float(each.amin()), float(each.amax()))
            bands: dict[int, Tensor] = {}
            weights, kept = None, None
            if self.weigher is not None:
                weights, kept = self._weights(each.permute(1, 2, 0).float().cpu().numpy(), None)
            self.engine.run(
                lambda top, bottom, left, right: each[None, :, top:bottom, left:right].float(),  # noqa: B023
                (each.shape[-2], each.shape[-1]),
                lambda row, band: bands.update({row: band.to(image.device)}),  # noqa: B023
                weights,
            )
            whole = torch.cat([bands[row] for row in sorted(bands)], dim=-2)
            results.append(keep_clean(whole, each[None].float(), kept))
        restored = torch.cat(results).to(image.dtype)
        return restored[0] if image.dim() == 3 else restored


def enlarged(alpha: np.ndarray, scale: int) -> np.ndarray:
    """Return an alpha channel ``(h, w)`` in the size of a restored picture."""
    if scale == 1:
        return alpha
    full = torch.from_numpy(alpha.astype(np.float32))[None, None]
    larger = torch.nn.functional.interpolate(full, scale_factor=scale, mode="bilinear", align_corners=False)[0, 0]
    values = larger.numpy()
    return (values if np.issubdtype(alpha.dtype, np.floating) else np.rint(values)).astype(alpha.dtype)


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype not in (np.uint8, np.uint16) and not np.issubdtype(pixels.dtype, np.floating):
        raise DataError(f"pixels of type {pixels.dtype}: expected uint8, uint16 or floats in [0, 1].")
    if not pixels.size:
        raise DataError(f"an image without pixels: {pixels.shape}.")
    if np.issubdtype(pixels.dtype, np.floating):
        _check_range(float(pixels.min()), float(pixels.max()))
    return pixels


def _check_range(low: float, high: float) -> None:
    # a little beyond is what interpolation does; 255 is another convention
    if not (low >= -0.5 and high <= 1.5):
        raise DataError(f"pixels from {low:g} to {high:g}: floats are expected in [0, 1] (divide by 255 or 65535).")


def _reader(pixels: np.ndarray, channels: int) -> Callable[[int, int, int, int], Tensor]:
    """Return a function that reads a tile of ``(h, w, c)`` as (1, channels, h, w) in [0, 1]."""
    full = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(pixels.dtype, 1.0)

    def read(top: int, bottom: int, left: int, right: int) -> Tensor:
        part = np.ascontiguousarray(pixels[top:bottom, left:right].transpose(2, 0, 1)).astype(np.float32)
        tile = torch.from_numpy(part).div_(full)[None]
        return tile.expand(-1, channels, -1, -1).contiguous() if tile.shape[1] == 1 else tile

    return read


def _from_unit(rows: Tensor, dtype: np.dtype[Any]) -> np.ndarray:
    """Return (c, h, w) in [0, 1] as ``(h, w, c)`` of a type."""
    if dtype in (np.dtype(np.uint8), np.dtype(np.uint16)):
        rows = (rows * float(np.iinfo(dtype).max)).round_()
    return rows.permute(1, 2, 0).cpu().numpy().astype(dtype)
