"""Restore files one after another: skip what is finished, report what is broken, leave no half file."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from basicsr_plugins.core.atomic import atomic_path, remove_leftovers, writing_to
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.data.files import first_few
from basicsr_plugins.restore.drawing import compare, weight_map
from basicsr_plugins.restore.encode import encode, output_format
from basicsr_plugins.restore.picture import open_image, read_picture
from basicsr_plugins.restore.plan import Job
from basicsr_plugins.restore.record import Record
from basicsr_plugins.restore.restorer import ImageRestorer, enlarged
from basicsr_plugins.restore.weighing import is_unsure

__all__ = ["Outcome", "Settings", "describe", "megapixels", "restore_files", "unfinished"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is written beside the pixels, and how.

    Args:
        quality: Of JPEG and WebP.
        compare: Also write before | after into the folder ``compare``.
        map: Also write the adapters' weights per region into the folder ``maps``.
    """

    quality: int = 95
    compare: bool = False
    map: bool = False


@dataclass
class Outcome:
    """How a run ended.

    Args:
        restored: Outputs that were written.
        failed: Files that could not be read or written, each with the reason.
    """

    restored: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def unfinished(jobs: Sequence[Job], record: Record, settings: Settings, overwrite: bool = False) -> list[Job]:
    """Return the jobs whose output is not there yet as this run would write it.

    Raises:
        DataError: A file stands in the way that this command did not write from this picture in this way.
    """
    left = [job for job in jobs if not record.is_finished(job.source, job.target)]
    written = [path for job in left for path in (job.target, *_drawings(job.target, settings).values())]
    there = [path for path in written if path.exists()]
    if there and not overwrite:
        raise DataError(
            f"OUTPUT: {len(there)} file(s) are there already, and not as this command would write them: "
            f"{first_few(there)}. Add --overwrite to replace them, or name another OUTPUT."
        )
    for folder in sorted({job.target.parent for job in left}):
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # now, and not after the first picture was restored
                pass
        remove_leftovers(folder)
    return left


def megapixels(job: Job) -> float:
    """Return the size of a photograph from its header; 0 where it cannot be read."""
    try:
        with open_image(job.source) as image:
            return image.width * image.height / 1e6
    except DataError:
        return 0.0


def restore_files(
    jobs: Sequence[Job],
    restorer: ImageRestorer,
    record: Record,
    settings: Settings,
    say: Say = print,
    advance: Callable[[float], Any] = lambda amount: None,
) -> Outcome:
    """Restore every job's file.

    Args:
        jobs: What ``unfinished`` returned.
        restorer: The model.
        record: Where finished outputs are noted.
        settings: What else is written.
        say: Prints a line about a picture.
        advance: Told how many megapixels of input were done since the last time.

    Raises:
        CheckpointError: The output cannot be written (read-only, full): the run ends there.
    """
    outcome = Outcome()
    for job in jobs:
        done = 0.0

        def progress(rows: int, width: int = 0) -> None:
            nonlocal done
            reached = rows * width / 1e6
            advance(reached - done)
            done = reached

        try:
            notes = _restore(job, restorer, settings, progress)
        except (DataError, OptionError, MemoryError) as error:
            text = "it does not fit into the memory that is free." if isinstance(error, MemoryError) else str(error)
            text = text if str(job.source) in text else f"{job.source}: {text}"
            outcome.failed.append(text)
            say(f"skipped  {text}")
            advance(megapixels(job) - done)
            continue
        record.note(job.source, job.target)
        outcome.restored.append(job.target)
        say(f"{job.source} -> {job.target}" + (f"  ({'; '.join(notes)})" if notes else ""))
    return outcome


def describe(seen: dict[str, float]) -> str:
    """Return ``rain 0.71, haze 0.20, ...`` and say so where the estimator is unsure."""
    text = ", ".join(f"{name} {share:.2f}" for name, share in seen.items())
    return f"{text} - unsure: no degradation stands out" if is_unsure(seen) else text


def _restore(job: Job, restorer: ImageRestorer, settings: Settings, progress: Callable[..., None]) -> list[str]:
    picture = read_picture(job.source)
    kind = output_format(job.source.suffix, picture.format, job.target.suffix)
    notes, seen = list(picture.notes), None
    width = picture.pixels.shape[1]
    if restorer.weigher is not None:
        seen = restorer.look(picture.pixels)
        if restorer.fixed is None:
            notes.append(describe(seen))
    pixels = restorer.restore_pixels(picture.pixels, seen, lambda rows: progress(rows, width))
    alpha = None if picture.alpha is None else enlarged(picture.alpha, restorer.scale)
    restored = dataclasses.replace(picture, pixels=pixels, alpha=alpha)
    data, more = encode(restored, kind, settings.quality, job.target)
    drawings = _drawings(job.target, settings)
    if "compare" in drawings:
        _draw(drawings["compare"], compare(picture.pixels, pixels))
    if "maps" in drawings:
        drawn = weight_map(picture.pixels, restorer.map(picture.pixels), restorer.model.adapters)
        _draw(drawings["maps"], drawn)
    _write(job.target, data)  # last: it is noted as finished next
    return notes + more


def _drawings(target: Path, settings: Settings) -> dict[str, Path]:
    """Return what is drawn beside an output, by the folder it goes to."""
    wanted = {"compare": settings.compare, "maps": settings.map}
    return {folder: target.parent / folder / f"{target.name}.png" for folder, is_wanted in wanted.items() if is_wanted}


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _draw(path: Path, drawing: Image.Image) -> None:
    with atomic_path(path) as temporary:
        drawing.save(temporary, "PNG")
