"""`bash tools/quickstart.sh` from beginning to end, with shortened runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from environments import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_quickstart_prints_its_table_and_goes_on_where_it_was(tmp_path):
    prefix = Path(sys.prefix)
    if not list(prefix.glob(".basicsr_plugins-*-test")):
        pytest.skip("this environment was not made by tools/run_tests.sh")
    variables = environment(
        VIRTUAL_ENV=str(prefix),
        PATH=f"{prefix / 'bin'}:{os.environ['PATH']}",
        QUICKSTART_SET="train.total_iter=2 val.val_freq=1000 datasets.train.gt_size=32",
    )
    # test files have no section `train`; the override makes one, which a test ignores
    script = ["bash", str(ROOT / "tools" / "quickstart.sh"), str(tmp_path / "here")]
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=variables, timeout=560)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in ("rain", "noise", "haze", "low_light", "blur", "average"):
        assert re.search(rf"^{name} +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"classifier on unseen photographs: [\d.]+%", done.stdout)
    pictures = [Path(line.strip()) for line in done.stdout.splitlines() if line.strip().endswith(".png")]
    assert len(pictures) == 5
    assert all(picture.is_file() for picture in pictures)
