"""A clean interpreter, for tests of what an import brings in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def run_isolated():
    """Return a function that runs source text in a new interpreter and returns what it printed."""

    def run(source: str) -> str:
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "BASICSR_PLUGINS_AUTOLOAD": "0", "PYTHONPATH": root}
        result = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, env=environment, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    return run
