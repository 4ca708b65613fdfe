"""A tiny network in a file, and one whose result is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from restore_networks import NETWORK_OPT, Identity, restorer_of, tiny

from basicsr_plugins import checkpoints


@pytest.fixture
def identity():
    return restorer_of(Identity())


@pytest.fixture
def weights_file(tmp_path):
    path = tmp_path / "model" / "net.safetensors"
    checkpoints.write(path, tiny().state_dict(), NETWORK_OPT)
    return path


@pytest.fixture
def noise():
    """(h, w, 4) of smooth noise, 16 bits."""
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 65536, (37, 53, 4), dtype=np.uint16), (0, 0), 2)
