"""Install stock BasicSR on any Python, torch first:  python tools/install_basicsr.py FOLDER [arguments of pip install]

The sdist is unpacked in FOLDER and stays there as published. What is installed is a copy with one change: its
setup.py calls exec() in a function and reads the result from locals(), where Python 3.13 and later do not put it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fetch_sdist import fetch

VERSION = "1.4.2"
FAILS, WORKS = "return locals()['__version__']", "return open('VERSION').read().strip()"


def mended_copy(published: Path, target: Path) -> Path:
    """Copy the source tree and let its setup.py read the version from the file VERSION."""
    shutil.copytree(published, target)
    script = target / "setup.py"
    script.write_text(script.read_text(encoding="utf-8").replace(FAILS, WORKS), encoding="utf-8")
    return target


def main() -> int:
    """Download what is missing, patch, install; return pip's exit status."""
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    published = folder / f"basicsr-{VERSION}"
    if not (published / "setup.py").is_file():
        fetch("basicsr", VERSION, folder)
    with tempfile.TemporaryDirectory() as scratch:
        mended = mended_copy(published, Path(scratch, "basicsr"))
        command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", *arguments, str(mended)]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
