"""Images inside MATLAB files: arrays (n, h, w, c), as the under-display-camera sets come."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np

from basicsr_plugins.core.errors import DataError, DependencyError, one_of
from basicsr_plugins.data.image_store import ImageStore

__all__ = ["MatStore"]


class MatStore(ImageStore):
    """The images of one array of a .mat file (MATLAB 5), held in memory.

    Args:
        file: The .mat file.
        key: The array's name; None takes the only one.
        where: YAML path, for messages.

    Raises:
        DataError: No such file or array, or an array of another shape.
        DependencyError: SciPy is not installed.
    """

    def __init__(self, file: Optional[str], key: Optional[str], where: str) -> None:
        path = Path(file or "").expanduser()
        if not path.is_file():
            raise DataError(f"{where}: there is no file {path}; the rule 'mat' takes a .mat file.")
        if not path.stat().st_size:
            raise DataError(f"{where}: {path} is empty (0 bytes).")
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise DependencyError("the pairing rule 'mat' needs SciPy: pip install scipy") from error
        try:
            arrays = {name: value for name, value in loadmat(path).items() if isinstance(value, np.ndarray)}
        except Exception as error:  # SciPy raises a dozen types for a broken file: zlib's, struct's, its own
            raise DataError(f"{where}: {path} cannot be read as a MATLAB 5 file ({error}).") from error
        if key is None and len(arrays) == 1:
            key = next(iter(arrays))
        if key not in arrays:
            raise DataError(f"{where}: {path}: {one_of(key, arrays, 'array')} Name it with mat_key_lq and mat_key_gt.")
        array = arrays[key]
        if array.ndim != 4 or array.shape[3] != 3 or array.dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"{where}: {path}[{key}] is {array.dtype} {array.shape}; expected 8 or 16 bits, shape (n, h, w, 3)."
            )
        self._array = array
        sizes = [array.shape[1:3]] * len(array)
        super().__init__([f"{path}[{key}][{number}]" for number in range(len(array))], sizes=sizes)

    def read(self, position: int) -> np.ndarray:
        """Return one image, BGR."""
        return np.ascontiguousarray(self._array[position, :, :, ::-1])

    def bytes_per_value(self, position: int) -> int:
        """Return the array's width."""
        return self._array.dtype.itemsize

    def verify(self, where: str, min_size: int | None, count: int) -> None:
        """Only the size can be wrong: the array was read already."""
        height, width = self.size(0)
        if min_size is not None and min(height, width) < min_size:
            raise DataError(f"{where}: images of {height} x {width} are smaller than gt_size {min_size}.")
