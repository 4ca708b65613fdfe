"""DCPT's pre-training options of all five networks on two ranks: the ranks stay equal, and each does its share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import two_ranks

FILES = [f"dcpt_{network}.yml" for network in ("nafnet", "restormer", "promptir", "swinir", "rcan")]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    files = two_ranks.run_script(Path(__file__).with_name("gloo_pretraining.py"), folder, *FILES)
    return [torch.load(file, weights_only=True) for file in files]


@pytest.mark.parametrize("name", FILES)
def test_ranks_train_and_validate_as_one(ranks, name):
    first, second = (rank[name] for rank in ranks)
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key
    assert set(first["logs"][0]) == {"l_pix", "l_cls"}
    assert first["accuracy"] == second["accuracy"]
    assert first["judged"] == first["images"], "every image is judged by one rank"
