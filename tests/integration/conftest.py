"""Real installs and an unmodified BasicSR checkout: everything runs in subprocesses."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from environments import Environment, copy_source, environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this source tree, built from a copy so that the tree stays clean."""
    source = copy_source(tmp_path_factory.mktemp("source") / "basicsr_plugins")
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(target)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    [built] = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(tmp_path_factory, wheel) -> Environment:
    """An environment with the wheel installed; tests must not change it."""
    made = Environment(tmp_path_factory.mktemp("installed") / "env")
    made.install(str(wheel))
    return made


@pytest.fixture(scope="session")
def stock_basicsr(tmp_path_factory) -> Path:
    """An unmodified BasicSR 1.4.2 checkout: the sdist where the set-up script left it, else a copy of the package."""
    target = tmp_path_factory.mktemp("checkout") / "BasicSR"
    sdist = Path(sys.prefix) / "stock" / "basicsr-1.4.2"
    if (sdist / "basicsr" / "train.py").is_file():
        shutil.copytree(sdist, target)
    else:
        package = Path(sysconfig.get_path("purelib")) / "basicsr"
        shutil.copytree(package, target / "basicsr", ignore=shutil.ignore_patterns("__pycache__"))
    return target


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """The demo photographs."""
    from basicsr_plugins.data.demo_photographs import write_demo_data

    folder = tmp_path_factory.mktemp("photographs")
    write_demo_data(folder)
    return folder
