"""Gather the photographs that the built-in model is trained and tested on, split by photograph.

    python tools/builtin_photographs.py datasets/builtin --debian DEBIAN

Nine come in the wheels of scikit-image, scikit-learn and matplotlib, the others in four Debian packages. DEBIAN holds
those packages (``*.deb``) or what was unpacked from them; on any Debian or Ubuntu, once::

    mkdir -p DEBIAN && cd DEBIAN && apt-get download lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 \\
        mate-backgrounds plasma-workspace-wallpapers

The list, with authors and licences, is builtin_photographs.tsv beside this file.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import cv2

from basicsr_plugins.core.atomic import atomic_path
from basicsr_plugins.core.errors import DataError, DependencyError, PluginError
from basicsr_plugins.data.demo_photographs import write_demo_data

#: Longest side of what is written. With it the whole folder is below 45 MiB as PNG: no second JPEG compression.
LONGEST = 1024
#: A training photograph is also written at half its size where this side is left: more scales from few scenes.
SHORTEST_HALF = 200
PARTS = ("train", "val", "test")
WHEELS = ("scikit-image", "scikit-learn", "matplotlib")


@dataclass(frozen=True)
class Photograph:
    """One line of the list.

    Attributes:
        part: ``train``, ``val`` or ``test``.
        name: Stem of the file that is written.
        package: The wheel or Debian package that carries it.
        path: The file inside that package.
        sha256: Of that file; for a wheel's, of its decoded RGB pixels.
        author: As the package names them.
        licence: As the package states it.
    """

    part: str
    name: str
    package: str
    path: str
    sha256: str
    author: str
    licence: str


def read_list() -> list[Photograph]:
    """Return the photographs, training part first."""
    with Path(__file__).with_suffix(".tsv").open(encoding="utf-8", newline="") as file:
        return [Photograph(**row) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def shrunk(image: Any, lossless: bool) -> Any:
    """Return an image area-averaged to ``LONGEST``; what comes from a JPEG is at least halved, which hides its traces.

    Args:
        image: uint8 ``(h, w, 3)``.
        lossless: Whether it was never compressed.
    """
    factor = max(max(image.shape[:2]) / LONGEST, 1.0 if lossless else 2.0)
    return image if factor == 1 else _area(image, factor)


def _area(image: Any, factor: float) -> Any:
    height, width = image.shape[:2]
    return cv2.resize(image, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA)


def unpack(folder: Path, target: Path) -> Path:
    """Return a folder in which the packages are unpacked: ``folder`` itself unless it holds ``*.deb``.

    Raises:
        DependencyError: There are packages but no dpkg.
        DataError: A package is broken.
    """
    packages = sorted(folder.glob("*.deb"))
    for package in packages:
        try:
            subprocess.run(["dpkg", "-x", str(package), str(target)], check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise DependencyError(
                f"{package} cannot be unpacked: there is no dpkg. Unpack it elsewhere ('dpkg -x FILE DIR', or "
                "'ar x FILE && tar xf data.tar.*') and give that folder."
            ) from error
        except subprocess.CalledProcessError as error:
            raise DataError(f"{package}: dpkg cannot unpack it: {error.stderr.strip()}. Download it again.") from error
    return target if packages else folder


def read_photographs(debian: Optional[Path], changed: list[str]) -> Iterator[tuple[Photograph, Any]]:
    """Yield every photograph with its pixels, BGR, as the packages hold them.

    Args:
        debian: Folder of packages or of what was unpacked from them.
        changed: Gets the names of those that are not byte for byte those of the list.

    Raises:
        DataError: Some are missing; all of them are named, with the command that brings them.
    """
    with tempfile.TemporaryDirectory() as temporary:
        wheels = write_demo_data(Path(temporary) / "wheels")
        of_wheels = {file.stem: file for part in ("train", "test") for file in wheels[part]}
        root = unpack(debian, Path(temporary) / "debian") if debian is not None else None
        listed = read_list()
        # without a folder of packages, one that cannot hold any of them
        below = root if root is not None else Path(temporary) / "none"
        files = {each: of_wheels[each.name] if each.package in WHEELS else below / each.path for each in listed}
        missing = [each for each in listed if not files[each].is_file()]
        if missing:
            packages = sorted({each.package for each in missing})
            raise DataError(
                f"{len(missing)} of {len(listed)} photographs are missing below {debian or '--debian DIR'}: "
                f"{', '.join(each.path for each in missing[:3])} ... Get them with "
                f"'mkdir -p DIR && cd DIR && apt-get update && apt-get download {' '.join(packages)}' "
                "and give --debian DIR."
            )
        for each, file in files.items():
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise DataError(f"{file}: not an image that OpenCV can read. Download {each.package} again.")
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if each.package in WHEELS else None
            if hashlib.sha256(file.read_bytes() if rgb is None else rgb.tobytes()).hexdigest() != each.sha256:
                changed.append(f"{each.name} ({each.package}: {each.path})")
            yield each, image


def write_photographs(folder: Path, debian: Optional[Path], any_version: bool = False) -> dict[str, list[Path]]:
    """Write ``train/``, ``val/`` and ``test/``; nothing is written unless every source is there and as listed.

    Args:
        folder: Created if needed. Files that are there already with the same content are left alone.
        debian: See ``read_photographs``.
        any_version: Take photographs of other versions of the packages, too.

    Returns:
        The files of each part.

    Raises:
        DataError: A source is missing or differs, or another file of that name is in the folder.
    """
    changed: list[str] = []
    prepared = [(each, shrunk(image, each.path.endswith(".png"))) for each, image in read_photographs(debian, changed)]
    if changed and not any_version:
        raise DataError(
            f"other content than in the list: {', '.join(changed)}. The package is of another version, or a decoder "
            "differs; --any-version takes it as it is, and the training is then no exact repetition."
        )
    written: dict[str, list[Path]] = {part: [] for part in PARTS}
    for each, image in prepared:
        written[each.part].append(_write(folder / each.part / f"{each.name}.png", image))
        if each.part == "train" and min(image.shape[:2]) >= 2 * SHORTEST_HALF:
            written[each.part].append(_write(folder / each.part / f"{each.name}_half.png", _area(image, 2)))
    return written


def _write(path: Path, image: Any) -> Path:
    encoded = cv2.imencode(".png", image)[1].tobytes()
    if path.exists():
        if path.read_bytes() != encoded:
            raise DataError(f"{path} is already there with other content; choose an empty folder.")
        return path
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    return path


def table() -> str:
    """Return the attribution of every photograph as the Markdown table of docs/builtin_model.md."""
    rows = [f"| {p.part} | {p.name} | {p.author} | {p.licence} | {p.package} |" for p in read_list()]
    return "\n".join(["| part | photograph | author | licence | package |", "| --- | --- | --- | --- | --- |", *rows])


def main() -> int:
    """Run the command."""
    text, _, usage = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=text, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="folder to write to, e.g. datasets/builtin")
    parser.add_argument("--debian", type=Path, metavar="DIR", help="folder with the four packages, or unpacked ones")
    parser.add_argument("--any-version", action="store_true", help="take other versions of the photographs as well")
    parser.add_argument("--table", action="store_true", help="print the attribution table and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return 0
    if arguments.folder is None:
        parser.error("give the folder to write to")
    try:
        written = write_photographs(arguments.folder, arguments.debian, arguments.any_version)
    except PluginError as error:
        print(f"builtin_photographs: {error}", file=sys.stderr)
        return 1
    for part, files in written.items():
        size = sum(file.stat().st_size for file in files) / 2**20
        print(f"{part}: {len(files)} images, {size:.1f} MiB in {arguments.folder / part}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
