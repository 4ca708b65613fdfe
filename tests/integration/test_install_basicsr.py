"""`tools/install_basicsr.py`: BasicSR's setup.py runs on every Python, and that is all that changes."""

from __future__ import annotations

import filecmp
import subprocess
import sys
from pathlib import Path

import pytest
from environments import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture
def published() -> Path:
    """The sdist as published, where the set-up script left it."""
    folder = Path(sys.prefix) / "stock" / "basicsr-1.4.2"
    if not (folder / "setup.py").is_file():
        pytest.skip("this environment was not made by tools/run_tests.sh")
    return folder


def test_only_the_reading_of_the_version_is_changed(published, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    import install_basicsr

    before = {path: path.read_bytes() for path in published.rglob("*.py")}
    mended = install_basicsr.mended_copy(published, tmp_path / "mended")
    names = [str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()]
    _, changed, missing = filecmp.cmpfiles(published, mended, names, shallow=False)
    assert (changed, missing) == (["setup.py"], [])
    old, new = ((folder / "setup.py").read_text().splitlines() for folder in (published, mended))
    assert [line.strip() for line in old if line not in new] == ["return locals()['__version__']"]

    done = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=mended, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "1.4.2"
    assert before == {path: path.read_bytes() for path in published.rglob("*.py")}
