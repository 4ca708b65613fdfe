"""What every test needs: one thread per process, fixed seeds, and BasicSR importable on any torchvision."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from versions import missing

from basicsr_plugins._startup import _basicsr_plugins_bootstrap as bootstrap

bootstrap.install_compat()


@pytest.fixture(autouse=True)
def _fixed_seeds():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - BasicSR draws from the global generator


@pytest.fixture(autouse=True)
def _log_propagates():
    yield
    logging.getLogger("basicsr").propagate = True  # BasicSR ends it with its first logger; caplog needs it


def pytest_collection_modifyitems(items):
    for item in items:
        reason = missing(item.nodeid)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
