"""Small folders of images for the data sets."""

from pathlib import Path

import cv2
import numpy as np
import pytest


def write_image(path: Path, height: int = 40, width: int = 48, seed: int = 0) -> Path:
    """Write a smooth random picture and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    return path


@pytest.fixture
def photos(tmp_path):
    """Return a folder of five pictures of different sizes."""
    for number in range(5):
        write_image(tmp_path / "photos" / f"{number}.png", 40 + number, 48 + 2 * number, number)
    return tmp_path / "photos"


@pytest.fixture
def image_writer():
    return write_image
