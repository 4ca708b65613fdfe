"""Degrade the images of a folder, and write down how, so that the same files can be made again."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Optional

import cv2
import numpy as np

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.plugins import without_code
from basicsr_plugins.core.unique_names import UniqueNames
from basicsr_plugins.data.files import first_few, image_files
from basicsr_plugins.data.images import read_image, to_float
from basicsr_plugins.data.manifest_file import read_manifest, write_manifest
from basicsr_plugins.data.output_folder import MANIFEST, clear_the_way, writing
from basicsr_plugins.degradations.base import Degradation
from basicsr_plugins.degradations.build import build_degradation

__all__ = ["MANIFEST", "degrade_folder", "image_rng", "rebuild_folder"]


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
    root, files = _files(source, recursive, target)
    names = _output_names(root, files)
    clear_the_way(root, target, [*names.values(), MANIFEST], overwrite)
    images = []
    for file in progress(files):
        name = file.relative_to(root).as_posix()
        image = read_image(file)
        result = degradation(to_float(image), image_rng(seed, name), severity)
        _write(target / names[file], result.image, image.dtype)
        images.append({"image": name, "sha256": _hash(image), "output": names[file], "params": result.params})
    content = {"degradation": degradation.options(), "severity": severity, "seed": seed, "images": images}
    return write_manifest(target / MANIFEST, content)


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
        DataError: The manifest cannot be read, was changed, or names files outside of a folder; clean images are
            missing or are other ones.
    """
    degradation, entries = _plan(manifest)
    root = source if source.is_dir() else source.parent
    missing = [entry.image for entry in entries if not (root / entry.image).is_file()]
    if missing:
        raise DataError(f"{manifest}: {len(missing)} of its images are not in {root}: {first_few(missing)}.")
    clear_the_way(root, target, [entry.output for entry in entries], overwrite)
    for entry in progress(entries):
        image = read_image(root / entry.image)
        if entry.sha256 and entry.sha256 != _hash(image):
            raise DataError(
                f"{root / entry.image}: is not the image that {manifest} was made from; its pixels differ, so the same "
                "degraded image cannot be made."
            )
        _write(target / entry.output, degradation.rebuild(to_float(image), entry.params).image, image.dtype)
    return len(entries)


@dataclass(frozen=True)
class _Entry:
    """One image of a manifest; ``sha256`` is that of its pixels, empty in manifests of version 1."""

    image: str
    output: str
    params: Mapping[str, Any]
    sha256: str


def _plan(manifest: Path) -> tuple[Degradation, list[_Entry]]:
    content = read_manifest(manifest)
    try:
        with without_code("a manifest"):  # it is data, of whatever origin
            degradation = build_degradation(content["degradation"], f"{manifest}: degradation")
        entries = [
            _Entry(entry["image"], entry["output"], dict(entry["params"]), entry.get("sha256", ""))
            for entry in content["images"]
        ]
    except OptionError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{manifest}: is no manifest of 'basicsr-plugins degrade' ({error}).") from error
    names = UniqueNames()
    for entry in entries:
        for name in (entry.image, entry.output):
            if not _is_inside(name):
                raise DataError(f"{manifest}: names {name!r}, which is no relative path inside a folder.")
        if names.take(entry.output) != entry.output or not entry.output.lower().endswith(".png"):
            raise DataError(f"{manifest}: two of its outputs are called {entry.output!r}, or it is no .png file.")
    return degradation, entries


def _is_inside(name: Any) -> bool:
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    # a drive or a backslash means another place on Windows
    paths = PurePosixPath(name), PureWindowsPath(name)
    return not any(path.is_absolute() or path.drive or path.root or ".." in path.parts for path in paths)


def _files(source: Path, recursive: bool, target: Path) -> tuple[Path, list[Path]]:
    if source.is_file():
        return source.parent, [source]
    return source, image_files(source, "IN_DIR", recursive, leave_out=target)


def _output_names(root: Path, files: list[Path]) -> dict[Path, str]:
    """Return ``a.jpg -> a.png``; the old ending stays where ``a.bmp`` is there too."""
    relative = {file: file.relative_to(root) for file in files}
    stems = Counter(path.with_suffix("").as_posix().lower() for path in relative.values())
    names, result = UniqueNames([MANIFEST]), {}
    for file, path in relative.items():
        stem, whole = path.with_suffix("").as_posix(), path.as_posix()
        result[file] = names.take(*([f"{stem}.png"] if stems[stem.lower()] == 1 else []), f"{whole}.png")
    return result


def _write(path: Path, image: np.ndarray, dtype: np.dtype[Any]) -> None:
    full = 65535.0 if dtype == np.uint16 else 255.0
    pixels = np.rint(np.clip(image, 0.0, 1.0) * np.float32(full)).astype(dtype)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # beside its place and renamed: a link there is replaced, not followed
        temporary = path.with_name(f".{path.name[-100:]}.{os.getpid()}.part")
        try:
            temporary.write_bytes(encoded.tobytes())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _hash(image: np.ndarray) -> str:
    return hashlib.sha256(f"{image.dtype} {image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
