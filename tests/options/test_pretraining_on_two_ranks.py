"""DCPT's pre-training options of all five networks on two ranks: the ranks stay equal, and each does its share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FILES = [f"dcpt_{network}.yml" for network in ("nafnet", "restormer", "promptir", "swinir", "rcan")]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("gloo_pretraining.py")
    processes = []
    for rank in range(2):
        environment = {
            **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank),
        }  # fmt: skip
        command = [sys.executable, str(script), str(folder), *FILES]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    output = [process.communicate(timeout=600)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(output)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", FILES)
def test_ranks_train_and_validate_as_one(ranks, name):
    first, second = (rank[name] for rank in ranks)
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key
    assert set(first["logs"][0]) == {"l_pix", "l_cls"}
    assert first["accuracy"] == second["accuracy"]
    assert first["judged"] == first["images"], "every image is judged by one rank"
