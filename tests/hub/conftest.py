"""A tiny network's file on a server of this machine, and an empty cache."""

from __future__ import annotations

import pytest
import torch
from local_server import ARGUMENTS, Site, serving

from basicsr_plugins.archs.nafnet_arch import NAFNet
from basicsr_plugins.hub import download


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("BASICSR_PLUGINS_CACHE", str(folder))
    monkeypatch.setattr(download, "PAUSES", (0, 0, 0, 0))
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """The bytes of a published file: a bare state dict in BasicSR's container."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("published") / "tiny.pth"
    torch.save({"params": NAFNet(**ARGUMENTS).state_dict()}, path)
    return path.read_bytes()


@pytest.fixture
def site(weights):
    return Site(weights)


@pytest.fixture
def url(site):
    with serving(site) as address:
        yield address
