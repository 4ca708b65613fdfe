"""Download one sdist from the package index and unpack it:  python tools/fetch_sdist.py basicsr 1.4.2 FOLDER

`pip download` runs the package's setup.py first, which for basicsr needs torch and fails on Python 3.13 and later.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
from pathlib import Path


def index_url() -> str:
    """Return the index that pip uses."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return os.environ.get("PIP_INDEX_URL") or asked.stdout.strip() or "https://pypi.org/simple"


def read(url: str) -> bytes:
    """Return what an address holds."""
    with urllib.request.urlopen(url, timeout=180) as answer:
        return answer.read()


def fetch(name: str, version: str, folder: Path) -> Path:
    """Find the file by its name, check its hash, unpack it, and return the folder that comes out."""
    page_url = f"{index_url().rstrip('/')}/{name}/"
    page = read(page_url).decode()
    link = re.search(rf'href="([^"]*/{re.escape(name)}-{re.escape(version)}\.tar\.gz#sha256=([0-9a-f]+))"', page)
    if link is None:
        sys.exit(f"error: {page_url} lists no {name}-{version}.tar.gz")
    content = read(urllib.parse.urljoin(page_url, html.unescape(link[1]).split("#")[0]))
    if hashlib.sha256(content).hexdigest() != link[2]:
        sys.exit(f"error: {name}-{version}.tar.gz does not have the hash that {page_url} lists")
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}-{version}.tar.gz"
    archive.write_bytes(content)
    with tarfile.open(archive) as opened:
        # "data": no absolute paths, no links out of the folder; older Pythons without it check the names instead
        if hasattr(tarfile, "data_filter"):
            opened.extractall(folder, filter="data")
        else:
            safe = [m for m in opened.getmembers() if m.isfile() and not (m.name.startswith("/") or ".." in m.name)]
            opened.extractall(folder, members=safe)
    return folder / f"{name}-{version}"


if __name__ == "__main__":
    fetch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
