"""Degrade the images of a folder, and write down how, so that the same files can be made again."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.plugins import without_code
from basicsr_plugins.data.files import first_few, image_files
from basicsr_plugins.data.images import read_image, to_float
from basicsr_plugins.degradations.base import Degradation
from basicsr_plugins.degradations.build import build_degradation

__all__ = ["MANIFEST", "degrade_folder", "image_rng", "rebuild_folder"]

MANIFEST = "manifest.json"
_VERSION = 1


def image_rng(seed: int, name: str) -> np.random.Generator:
    """Return the generator of one image: of the seed and the file's name, not of its place in the folder."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())])))


def degrade_folder(
    source: Path,
    target: Path,
    degradation: Degradation,
    *,
    severity: Optional[float] = None,
    seed: int = 0,
    recursive: bool = False,
    overwrite: bool = False,
    progress: Callable[[list[Path]], Any] = list,
) -> Path:
    """Write a degraded copy of every image of a folder, and the manifest; return the manifest's path.

    Args:
        source: Folder of clean images, or one image.
        target: Folder of the copies; PNG with the bit depth of the source.
        degradation: What is done to them.
        severity: In [0, 1]; None draws each range.
        seed: Of every draw.
        recursive: Take sub-folders too.
        overwrite: Replace files that are there.
        progress: Wraps the list of files, such as ``tqdm``.

    Raises:
        DataError: No images, a broken one, or files in the way.
    """
    root, files = _files(source, recursive)
    names = _output_names(root, files)
    _clear_the_way(root, target, names.values(), overwrite)
    images = []
    for file in progress(files):
        name = file.relative_to(root).as_posix()
        image = read_image(file)
        result = degradation(to_float(image), image_rng(seed, name), severity)
        _write(target / names[file], result.image, image.dtype)
        images.append({"image": name, "output": names[file], "params": result.params})
    manifest = {
        "version": _VERSION,
        "degradation": degradation.options(),
        "severity": severity,
        "seed": seed,
        "images": images,
    }
    path = target / MANIFEST
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


def rebuild_folder(
    source: Path,
    target: Path,
    manifest: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[list[Any]], Any] = list,
) -> int:
    """Make the files of a manifest again from the clean images; return their number.

    Raises:
        DataError: The manifest cannot be read, or clean images are missing.
    """
    try:
        content: Mapping[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        with without_code("a manifest"):  # it is data, of whatever origin
            degradation = build_degradation(content["degradation"], f"{manifest}: degradation")
        entries = [(entry["image"], entry["output"], entry["params"]) for entry in content["images"]]
    except OSError as error:
        raise DataError(f"{manifest}: cannot be read ({error.strerror or error}).") from error
    except OptionError:
        raise
    except (KeyError, TypeError, ValueError) as error:  # among them bytes that are no text, and text that is no JSON
        raise DataError(f"{manifest}: is no manifest of 'basicsr-plugins degrade' ({error}).") from error
    root = source if source.is_dir() else source.parent
    missing = [name for name, _, _ in entries if not (root / name).is_file()]
    if missing:
        raise DataError(f"{manifest}: {len(missing)} of its images are not in {root}: {first_few(missing)}.")
    _clear_the_way(root, target, [output for _, output, _ in entries], overwrite)
    for name, output, params in progress(entries):
        image = read_image(root / name)
        _write(target / output, degradation.rebuild(to_float(image), params).image, image.dtype)
    return len(entries)


def _files(source: Path, recursive: bool) -> tuple[Path, list[Path]]:
    if source.is_file():
        return source.parent, [source]
    return source, image_files(source, "IN_DIR", recursive)


def _output_names(root: Path, files: list[Path]) -> dict[Path, str]:
    """Return ``a.jpg -> a.png``; the old ending stays where ``a.bmp`` is there too."""
    stems: dict[str, int] = {}
    for file in files:
        stem = file.relative_to(root).with_suffix("").as_posix()
        stems[stem] = stems.get(stem, 0) + 1
    names = {}
    for file in files:
        relative = file.relative_to(root)
        stem = relative.with_suffix("").as_posix()
        names[file] = f"{stem if stems[stem] == 1 else relative.as_posix()}.png"
    return names


def _clear_the_way(root: Path, target: Path, names: Any, overwrite: bool) -> None:
    if target.resolve() == root.resolve():
        raise DataError(f"OUT_DIR is the folder of the clean images ({root}): name another one.")
    there = [name for name in names if (target / name).exists()]
    if there and not overwrite:
        raise DataError(f"{target}: {len(there)} file(s) are there already: {first_few(there)}. Add --overwrite.")
    target.mkdir(parents=True, exist_ok=True)


def _write(path: Path, image: np.ndarray, dtype: np.dtype[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    full = 65535.0 if dtype == np.uint16 else 255.0
    pixels = np.rint(np.clip(image, 0.0, 1.0) * np.float32(full)).astype(dtype)
    if not cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)):
        raise DataError(f"{path}: cannot be written.")
