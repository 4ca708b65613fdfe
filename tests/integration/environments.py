"""Real virtual environments and clean copies of the source for the integration tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLEAN = ("BASICSR_PLUGINS_AUTOLOAD", "BASICSR_PLUGINS_STRICT", "PYTHONPATH")


class Environment:
    """A fresh virtual environment that sees the packages of the running one, but not this project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        self.site = Path(self._output("import sysconfig; print(sysconfig.get_path('purelib'))"))
        # .pth files inside a folder that a .pth file adds are not read, so no hook comes along
        parents = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.site / "zz_parent.pth").write_text("\n".join(sorted(parents)) + "\n")

    def _output(self, code: str) -> str:
        done = subprocess.run([str(self.python), "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def pip(self, *arguments: str) -> None:
        """Run the outer pip for this environment, offline."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self, *arguments: str) -> None:
        """Install without dependencies and without the network."""
        self.pip("install", "-q", "--no-deps", "--no-index", "--no-build-isolation", *arguments)

    def run(self, *arguments: str, cwd: Path | None = None, expect: int | None = 0, **variables: str):
        """Run this environment's python and return the finished process."""
        done = subprocess.run(
            [str(self.python), *arguments], capture_output=True, text=True, check=False,
            cwd=cwd or self.folder, env=environment(**variables), timeout=560,
        )  # fmt: skip
        if expect is not None:
            assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def files(self) -> set[str]:
        """Return every file in site-packages, without compiled ones."""
        return {
            str(path.relative_to(self.site))
            for path in self.site.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }


def environment(**variables: str) -> dict[str, str]:
    """Return the environment variables of a subprocess."""
    kept = {key: value for key, value in os.environ.items() if key not in CLEAN}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **variables}


def copy_source(target: Path) -> Path:
    """Copy what is needed to build the project."""
    wanted = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
    target.mkdir(parents=True)
    for name in wanted:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)
    for name in ("basicsr_plugins", "options"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target
