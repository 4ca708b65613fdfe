"""What every test needs: one thread per process, fixed seeds, and BasicSR importable on any torchvision."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from basicsr_plugins._startup import _basicsr_plugins_bootstrap as bootstrap
from basicsr_plugins.stock import sampler

bootstrap.install_compat()


@pytest.fixture(autouse=True)
def _fixed_seeds():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - BasicSR draws from the global generator


@pytest.fixture(autouse=True)
def _nothing_to_skip():
    """A test's resume must not shift the next test's first epoch, nor its sampler count the next test's batches."""
    yield
    sampler.skip_samples(0)
    sampler._current_sampler = None
    logging.getLogger("basicsr").propagate = True  # BasicSR ends it with its first logger; caplog needs it


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
