"""Real colour photographs that other packages carry in their wheels, as a data set without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr_plugins.core.atomic import atomic_path
from basicsr_plugins.core.errors import DataError, DependencyError

__all__ = ["SPLIT", "write_demo_data"]

#: Split by photograph: no scene is in both parts (the two motorcycle views show one scene).
SPLIT = {
    "train": (
        "astronaut", "china", "coffee", "flower", "grace_hopper", "hubble_deep_field", "motorcycle_left",
        "motorcycle_right", "retina",
    ),
    "test": ("chelsea", "rocket"),
}  # fmt: skip
#: The others are scikit-image's.
OF_SCIKIT_LEARN = ("china", "flower")
OF_MATPLOTLIB = ("grace_hopper",)
TILE = 128


def write_demo_data(folder: str | Path) -> dict[str, list[Path]]:
    """Write ``train/`` and ``test/`` (whole photographs) and ``val/`` (128-pixel tiles of the test photographs).

    Args:
        folder: Created if needed. Files that are already there with the same content are left alone.

    Returns:
        The files of each part.

    Raises:
        DependencyError: One of the packages is not installed.
        DataError: A file of that name with other content is already there.
    """
    folder = Path(folder)
    written: dict[str, list[Path]] = {"train": [], "test": [], "val": []}
    for part, names in SPLIT.items():
        for name in names:
            image = _photograph(name)
            written[part].append(_write(folder / part / f"{name}.png", image))
            if part == "test":
                written["val"] += [
                    _write(
                        folder / "val" / f"{name}_{top:03d}_{left:03d}.png", image[top : top + TILE, left : left + TILE]
                    )
                    for top in range(0, image.shape[0] - TILE + 1, TILE)
                    for left in range(0, image.shape[1] - TILE + 1, TILE)
                ]
    return written


def _photograph(name: str) -> Any:
    try:
        if name in OF_SCIKIT_LEARN:
            from sklearn.datasets import load_sample_image

            return load_sample_image(f"{name}.jpg")
        if name in OF_MATPLOTLIB:
            import matplotlib.cbook
            from PIL import Image

            with Image.open(matplotlib.cbook.get_sample_data(f"{name}.jpg", asfileobj=False)) as image:
                return np.array(image)
        from skimage import data
    except ImportError as error:
        raise DependencyError(
            "the demo photographs are in the wheels of scikit-image, scikit-learn and matplotlib: "
            "pip install basicsr-plugins[demo]."
        ) from error
    if name.startswith("motorcycle"):
        left, right, _ = data.stereo_motorcycle()
        return left if name.endswith("left") else right
    return getattr(data, name)()


def _write(path: Path, image: Any) -> Path:
    encoded = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2BGR))[1].tobytes()
    if path.exists():
        if path.read_bytes() != encoded:
            raise DataError(f"{path} is already there with other content; choose an empty folder.")
        return path
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    return path
