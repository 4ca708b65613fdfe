"""Kill -9 at thirty moments, half of them while a file is being written: the next start goes on from a whole one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
import torch

TESTS = Path(__file__).parents[1]
KILLS = 30


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its runs")
def test_kill_nine_at_thirty_moments(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(TESTS / "kill_driver.py"), str(tmp_path), str(KILLS), "5"],
        env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    kills, end = lines[:-1], lines[-1]
    assert len(kills) == KILLS
    for kill in kills:
        assert kill["killed"]
        assert kill["broken"] == []
        assert kill["after"] >= kill["before"]
        assert kill["resumed"] in (-1, kill["before"])  # -1: killed before it had read anything
    assert sum(kill["resumed"] > 0 for kill in kills) >= KILLS // 3
    assert sum(bool(kill["writing"]) for kill in kills) >= KILLS // 6
    assert end["codes"] == [0, 0], end["output"]
    # the half-written files of the killed runs are gone, and the run is the one that was never killed
    root = tmp_path / "experiments"
    assert list(root.glob("killed/**/*.incomplete")) == []
    assert len(list(root.glob("killed/training_states/*.state"))) == 2
    first, second = (torch.load(root / name / "models" / "net_g_latest.pth") for name in ("killed", "straight"))
    assert tiny_runs.differences(first, second) == []
