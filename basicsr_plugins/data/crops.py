"""Cut the images of a folder, or the pairs of two, into sub-images, as BasicSR's ``extract_subimages.py`` does."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from basicsr_plugins.core.atomic import atomic_path, remove_leftovers
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.data.files import first_few
from basicsr_plugins.data.images import as_png, decode, has_alpha, image_size, whole_bytes
from basicsr_plugins.data.journal import Journal, stamp
from basicsr_plugins.data.manifest_file import read_manifest, write_manifest
from basicsr_plugins.data.output_folder import MANIFEST, clear_the_way
from basicsr_plugins.data.parallel import in_parallel, worker_count
from basicsr_plugins.data.sources import Source, find_sources
from basicsr_plugins.data.windows import Cutting, windows

__all__ = ["COMMAND", "JOURNAL", "CropReport", "crop_folder"]

COMMAND = "data crop"
JOURNAL = ".basicsr_plugins_crops.jsonl"


@dataclass
class CropReport:
    """How a run ended.

    Args:
        written: Sub-images that were written, of a pair both counted.
        finished: Images, or pairs, that an earlier run had finished.
        small: Images smaller than a window that were kept whole or left out.
        alpha: Images whose transparency was dropped.
        failed: Images, or pairs, that gave no sub-image, each with the reason.
        unused: Clean images that have no degraded one.
        stale: Sub-images of an earlier run that this one would not write; removed with ``overwrite``.
    """

    written: int = 0
    finished: int = 0
    small: int = 0
    alpha: int = 0
    failed: list[str] = field(default_factory=list)
    unused: list[Path] = field(default_factory=list)
    stale: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """One image or pair: where its sub-images lie in the smaller one, and what they are called."""

    source: Source
    sizes: tuple[tuple[int, int], ...]
    boxes: list[tuple[int, int, int, int]]

    @property
    def names(self) -> list[str]:
        return [f"{self.source.name}_s{number:03d}.png" for number in range(1, len(self.boxes) + 1)]


def crop_folder(
    source: Path,
    target: Path,
    cutting: Optional[Cutting] = None,
    *,
    pair: Optional[tuple[Path, Path]] = None,
    rule: str = "same_stem",
    recursive: bool = False,
    overwrite: bool = False,
    workers: Optional[int] = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
    say: Callable[[str], Any] = print,
) -> CropReport:
    """Write the sub-images ``NAME_s001.png`` ... of every image, and a manifest of them.

    The pixels are those that the data sets read: upright, 8 or 16 bits, grey stays grey, transparency is dropped. Run
    again, it goes on where it was stopped.

    Args:
        source: Folder of images; of the clean ones, with ``pair``.
        target: Folder of the sub-images.
        cutting: Size, step and the rest; BasicSR's numbers if left out.
        pair: Folder of the degraded images, and of their sub-images: cut at the same places, called by the same names.
        rule: How the names of a pair belong together.
        recursive: Take sub-folders too.
        overwrite: Replace files that this command did not write from these images in this way.
        workers: Threads.
        progress: Wraps the iterator over the images, given their number.
        say: Prints a line about an image.

    Raises:
        OptionError: A wrong number or rule.
        DataError: No image, no partner, an image that is too small with ``refuse``, or files in the way.
        CheckpointError: The folder cannot be written, or the disk is full.
    """
    cutting, workers = cutting or Cutting(), worker_count(workers)
    if pair is None and cutting.scale != 1:
        raise OptionError(f"--scale {cutting.scale}: it belongs to --pair; a single folder is cut as it is.")
    roots, targets = [source], [target]
    if pair is not None:
        roots.append(pair[0])
        targets.append(pair[1])
        _need_apart(roots, targets)
    sources, unused = find_sources(
        source, None if pair is None else pair[0], rule=rule, recursive=recursive,
        leave_out=targets if pair is not None else (target, None),
    )  # fmt: skip
    report = CropReport(unused=unused)
    jobs = _plan(sources, cutting, report, workers)
    journal = Journal(target / JOURNAL, dataclasses.asdict(cutting))
    done: dict[str, list[Any]] = {}
    for job in jobs:
        result = journal.finished(job.source.name, job.source.files, _paths(job, targets))
        if result is not None:
            done[job.source.name] = result
    report.finished = len(done)
    left = [job for job in jobs if job.source.name not in done]
    names = [name for job in left if not journal.was_started(job.source.name) for name in job.names]
    for root, folder in zip(roots, targets):
        of = "the images" if pair is None else "images of the pairs"
        manifest = [] if _is_ours(folder / MANIFEST) else [MANIFEST]
        clear_the_way(root, folder, [*names, *manifest], overwrite, where="OUTPUT", of=of)
        for place in {(folder / job.source.name).parent for job in left}:
            remove_leftovers(place)
    _clear_stale(journal, {name for job in jobs for name in job.names}, targets, overwrite, report)

    def noted() -> Iterator[_Job]:
        for job in left:
            journal.start(job.source.name)
            yield job

    results = in_parallel(lambda job: (job, _cut(job, roots, targets, cutting)), noted(), workers)
    with contextlib.closing(results):
        for job, result in progress(results, len(left)):
            if isinstance(result, str):
                report.failed.append(result)
                say(f"skipped  {result}")
                continue
            journal.finish(job.source.name, job.source.files, _paths(job, targets), result)
            done[job.source.name] = result
            report.written += len(job.boxes) * len(targets)
            report.alpha += sum(has_alpha(file) for file in job.source.files)
    for side, folder in enumerate(targets):
        images = [entry for job in jobs if job.source.name in done for entry in done[job.source.name][side]]
        _write_manifest(folder, cutting, images)
    if not done:
        raise DataError(f"INPUT: no image of {source} could be cut: {first_few(report.failed) or 'all are too small'}.")
    return report


def _need_apart(roots: list[Path], targets: list[Path]) -> None:
    inputs = {path.resolve() for path in roots}  # one folder may hold both halves
    outputs = [path.resolve() for path in targets]
    for place in outputs:
        if place in inputs or outputs.count(place) > 1:
            raise DataError(f"--pair: {place} is named twice; each output is a folder of its own.")


def _plan(sources: list[Source], cutting: Cutting, report: CropReport, workers: int) -> list[_Job]:
    """Return what can be cut; only headers are read, so that nothing is written before names and sizes are known."""
    jobs, small = [], []

    def look(source: Source) -> tuple[Source, Any]:
        try:
            return source, tuple(image_size(file) for file in source.files)
        except DataError as error:
            return source, str(error)

    for source, sizes in in_parallel(look, sources, workers):
        problem = sizes if isinstance(sizes, str) else _misfit(source, sizes, cutting.scale)
        if problem:
            report.failed.append(problem)
            continue
        height, width = sizes[-1]
        if min(height, width) < cutting.size // cutting.scale:
            small.append(f"{source.files[0]} is {sizes[0][0]} x {sizes[0][1]}")
            if cutting.small == "skip":
                continue
        jobs.append(_Job(source, sizes, windows(height, width, cutting)))
    report.small = len(small)
    if small and cutting.small == "refuse":
        raise DataError(
            f"INPUT: {len(small)} image(s) smaller than --size {cutting.size}: {first_few(small)} (h x w). "
            "'--small keep' keeps them whole, '--small skip' leaves them out."
        )
    return jobs


def _misfit(source: Source, sizes: tuple[tuple[int, int], ...], scale: int) -> str:
    """Say what is wrong with the sizes of a pair; a clean image may have a rest that its degraded one lost."""
    if len(sizes) == 1 or all(0 <= large - scale * little < scale for large, little in zip(*sizes)):
        return ""
    clean, degraded = (f"{file} is {h} x {w}" for file, (h, w) in zip(source.files, sizes))
    return f"{clean}, {degraded} (h x w): not {scale} times as large (--scale)."


def _paths(job: _Job, targets: list[Path]) -> list[Path]:
    return [target / name for target in targets for name in job.names]


def _is_ours(manifest: Path) -> bool:
    with contextlib.suppress(DataError):
        return read_manifest(manifest).get("command") == COMMAND
    return False


def _clear_stale(journal: Journal, planned: set[str], targets: list[Path], overwrite: bool, report: CropReport) -> None:
    """Find what an earlier run wrote and this one would not: a data set would read it too."""
    for result, stamps in journal.results():
        outputs = [entry["output"] for side in result for entry in side]
        places = [target for target, side in zip(targets, result) for _ in side]
        for target, name, written in zip(places, outputs, stamps):
            path = target / name
            with contextlib.suppress(OSError):
                if name not in planned and not path.is_symlink() and stamp(path) == written:
                    report.stale.append(path)
                    if overwrite:
                        path.unlink()


def _cut(job: _Job, roots: list[Path], targets: list[Path], cutting: Cutting) -> Any:
    """Write the sub-images of one source; return what the manifests say of them, or what is wrong with the source."""
    images, hashes = [], []
    try:
        for file, size in zip(job.source.files, job.sizes):
            data = whole_bytes(file)
            image = decode(data, str(file), keep_grey=True)
            if image.shape[:2] != size:
                return f"{file}: is {image.shape[0]} x {image.shape[1]} (h x w), its header says {size[0]} x {size[1]}."
            images.append(image)
            hashes.append(hashlib.sha256(data).hexdigest())
    except DataError as error:
        return str(error)
    result: list[list[dict[str, Any]]] = []
    for side, (image, target) in enumerate(zip(images, targets)):
        # a single folder is cut in its own pixels; of a pair the clean image is the larger one
        factor = cutting.scale if side == 0 else 1
        relative = job.source.files[side].relative_to(roots[side]).as_posix()
        entries = []
        for name, box in zip(job.names, job.boxes):
            top, left, height, width = (factor * number for number in box)
            data = as_png(image[top : top + height, left : left + width], cutting.compression)
            with atomic_path(target / name, flush=False) as temporary:
                temporary.write_bytes(data)
            entries.append({
                "output": name, "sha256": hashlib.sha256(data).hexdigest(), "image": relative,
                "image_sha256": hashes[side], "window": [top, left, height, width],
            })  # fmt: skip
        result.append(entries)
    return result


def _write_manifest(folder: Path, cutting: Cutting, images: list[dict[str, Any]]) -> None:
    content = {"command": COMMAND, "cutting": dataclasses.asdict(cutting), "images": images}
    write_manifest(folder / MANIFEST, content)
