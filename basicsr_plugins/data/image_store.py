"""The images of one root, by position: folder, list or lmdb; the optional RAM cache sits on top of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from basicsr_plugins.core.errors import DataError, OptionError, one_of
from basicsr_plugins.data.files import first_few, image_files, listed_files, lmdb_keys
from basicsr_plugins.data.images import bytes_per_value, decode, image_problem, image_size, read_image
from basicsr_plugins.data.lmdb_reader import open_lmdb

__all__ = ["ImageStore", "open_store"]


class ImageStore:
    """Read images by position.

    Args:
        paths: Files, or the keys of an lmdb.
        lmdb_root: The lmdb folder, if it is one.
        sizes: (h, w) of each, where they are known already.
    """

    def __init__(
        self, paths: Sequence[str], lmdb_root: str = "", sizes: Optional[Sequence[Optional[tuple[int, int]]]] = None
    ) -> None:
        self.paths = [str(path) for path in paths]
        self.lmdb_root = lmdb_root
        self._sizes = list(sizes) if sizes is not None else None
        self._environment: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, position: int) -> np.ndarray:
        """Return one image, BGR ``(h, w, 3)``, uint8 or uint16.

        Raises:
            DataError: It cannot be read; the text names the file.
        """
        if not self.lmdb_root:
            return read_image(self.paths[position])
        key = self.paths[position]
        with self._lmdb().begin(write=False) as transaction:
            data = transaction.get(key.encode())
        if data is None:
            raise DataError(f"{self.lmdb_root}: its meta_info.txt names {key!r}, its data does not.")
        return decode(data, f"{self.lmdb_root}[{key}]")

    def size(self, position: int) -> tuple[int, int]:
        """Return (h, w) of one image without decoding it, where that is possible."""
        if self._sizes is not None and self._sizes[position] is not None:
            return self._sizes[position]  # type: ignore[return-value]
        return self.read(position).shape[:2] if self.lmdb_root else image_size(self.paths[position])

    def bytes_per_value(self, position: int) -> int:
        """Return 2 for an image of 16 bits, else 1."""
        return self.read(position).dtype.itemsize if self.lmdb_root else bytes_per_value(self.paths[position])

    def verify(self, where: str, min_size: int | None, count: int) -> None:
        """Look at the first ``count`` images: broken ones, and ones smaller than the crop.

        Raises:
            DataError: Names the first offenders and counts the rest.
        """
        broken, small = [], []
        for position in range(min(count, len(self))):
            problem = "" if self.lmdb_root else image_problem(self.paths[position])
            if problem:
                broken.append(f"{self.paths[position]} {problem}")
            elif min_size is not None:
                height, width = self.size(position)
                if min(height, width) < min_size:
                    small.append(f"{self.paths[position]} is {height} x {width}")
        if broken:
            raise DataError(f"{where}: {len(broken)} unreadable image(s): {first_few(broken)}.")
        if small:
            raise DataError(
                f"{where}: {len(small)} image(s) smaller than gt_size {min_size}: {first_few(small)} (h x w). "
                "Take them out, lower gt_size, or set 'pad_small: true' to mirror their edges."
            )

    def _lmdb(self) -> Any:
        # an lmdb environment must not cross a fork: each process opens its own
        if self._environment is None or self._environment[0] != os.getpid():
            self._environment = (os.getpid(), open_lmdb(self.lmdb_root))
        return self._environment[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environment": None}


def open_store(
    root: str,
    where: str,
    *,
    key: str = "dataroot_gt",
    io_backend: Optional[Mapping[str, Any]] = None,
    meta_info_file: Optional[str] = None,
    recursive: bool = False,
) -> ImageStore:
    """Return the images of a folder, of the files that a list names, or of an lmdb.

    Raises:
        DataError: Nothing there, or nothing readable as a list.
        OptionError: An unknown backend.
    """
    backend = (io_backend or {}).get("type", "disk")
    if backend not in ("disk", "lmdb"):
        raise OptionError(f"{where}.io_backend.type: {one_of(backend, ['disk', 'lmdb'], 'backend')}")
    if backend == "lmdb":
        keys = lmdb_keys(root, f"{where}.{key}")
        names = sorted(keys)
        return ImageStore(names, str(Path(root).expanduser()), [keys[name] for name in names])
    if meta_info_file is not None:
        return ImageStore([str(path) for path in listed_files(root, meta_info_file, where)])
    return ImageStore([str(path) for path in image_files(root, f"{where}.{key}", recursive)])
