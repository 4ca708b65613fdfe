"""Pack the images of a folder, or the pairs of two, into lmdb that BasicSR and the data sets here read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

from basicsr_plugins.core.atomic import atomic_folder
from basicsr_plugins.core.errors import CheckpointError, DataError, OptionError
from basicsr_plugins.core.unique_names import UniqueNames
from basicsr_plugins.data.files import first_few
from basicsr_plugins.data.images import as_png, decode, has_alpha, whole_bytes
from basicsr_plugins.data.lmdb_reader import lmdb_package
from basicsr_plugins.data.manifest_file import write_manifest
from basicsr_plugins.data.output_folder import MANIFEST
from basicsr_plugins.data.parallel import in_parallel, worker_count
from basicsr_plugins.data.sources import Source, find_sources

__all__ = ["COMMAND", "LmdbReport", "lmdb_key", "write_lmdb"]

COMMAND = "data lmdb"
#: What a key may hold beside letters and digits. Not '.', at which BasicSR cuts a line of meta_info.txt; no quotes and
#: no '#', which mean something in a list; no '%', which marks what was rewritten.
_SAFE = "/-_ ()[]+=,@~!&$;^"
_LONGEST = 511  # bytes, lmdb's own limit
_BATCH = 64 << 20  # bytes in one transaction
_FIRST_MAP = 128 << 20


@dataclass
class LmdbReport:
    """How a run ended.

    Args:
        keys: How many images, or pairs, were packed.
        renamed: Names that became another key, as (name, key).
        alpha: Images whose transparency was dropped.
        failed: Images, or pairs, that were left out, each with the reason.
        unused: Clean images that have no degraded one.
    """

    keys: int = 0
    renamed: list[tuple[str, str]] = field(default_factory=list)
    alpha: int = 0
    failed: list[str] = field(default_factory=list)
    unused: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Value:
    data: bytes
    shape: tuple[int, int, int]
    source_hash: str
    alpha: bool


def lmdb_key(name: str) -> str:
    """Return a name as a key that BasicSR can read: ASCII, without a dot, and nothing that a list would take apart.

    Example:
        >>> lmdb_key("sub/0025_0.8_0.04"), lmdb_key("café #1"), lmdb_key("100%")
        ('sub/0025_0_8_0_04', 'caf%C3%A9 %231', '100%25')
    """
    key = quote(name.replace(".", "_"), safe=_SAFE)
    spaces = len(key) - len(key.strip(" "))
    return key if not spaces else quote(key, safe=_SAFE.replace(" ", "") + "%")


def write_lmdb(
    source: Path,
    target: Path,
    *,
    pair: Optional[tuple[Path, Path]] = None,
    rule: str = "same_stem",
    recursive: bool = False,
    compression: int = 1,
    workers: Optional[int] = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
    say: Callable[[str], Any] = print,
) -> LmdbReport:
    """Write ``target`` (data.mdb, lock.mdb, meta_info.txt, manifest.json) from the images of a folder.

    Images are stored as PNG with the pixels that the data sets read: upright, 8 or 16 bits, grey stays grey,
    transparency is dropped. An lmdb stands under its name when it is complete, and not before.

    Args:
        source: Folder of images; of the clean ones, with ``pair``.
        target: ``NAME.lmdb``, which must not exist.
        pair: Folder of the degraded images, and their ``NAME.lmdb``, which gets the same keys.
        rule: How the names of a pair belong together.
        recursive: Take sub-folders too, which become part of the keys.
        compression: Of the PNG, 0 to 9.
        workers: Threads.
        progress: Wraps the iterator over the images, given their number.
        say: Prints a line about an image.

    Raises:
        OptionError: A wrong number, rule or ending.
        DataError: No image, no partner, or something stands at ``target``.
        DependencyError: lmdb is not installed.
        CheckpointError: The folder cannot be written, or the disk is full.
    """
    lmdb = lmdb_package("'data lmdb'")
    workers = worker_count(workers)
    if not 0 <= compression <= 9:
        raise OptionError(f"--compression: must lie between 0 and 9, got {compression}.")
    targets = [target] if pair is None else [target, pair[1]]
    _check_targets(targets)
    sources, unused = find_sources(source, None if pair is None else pair[0], rule=rule, recursive=recursive)
    report = LmdbReport(unused=unused)
    keyed = _keys(sources, report)
    roots = [source] if pair is None else [source, pair[0]]
    images: list[list[dict[str, Any]]] = [[] for _ in targets]
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(atomic_folder(path)) for path in targets]
        with contextlib.ExitStack() as writers:
            stores = [
                writers.enter_context(_Writer.opened(lmdb, folder, path)) for folder, path in zip(folders, targets)
            ]
            results = in_parallel(lambda item: (*item, _values(item[0], compression)), keyed, workers)
            writers.enter_context(contextlib.closing(results))
            for each, key, values in progress(results, len(keyed)):
                if isinstance(values, str):
                    report.failed.append(values)
                    say(f"skipped  {values}")
                    continue
                report.keys += 1
                report.alpha += sum(value.alpha for value in values)
                for side, value in enumerate(values):
                    stores[side].put(key, value, compression)
                    images[side].append({
                        "key": key, "image": each.files[side].relative_to(roots[side]).as_posix(),
                        "image_sha256": value.source_hash, "sha256": hashlib.sha256(value.data).hexdigest(),
                    })  # fmt: skip
        if not report.keys:
            raise DataError(f"INPUT: no image of {source} could be read: {first_few(report.failed)}.")
        for folder, entries in zip(folders, images):
            write_manifest(folder / MANIFEST, {"command": COMMAND, "compression": compression, "images": entries})
    return report


def _check_targets(targets: list[Path]) -> None:
    for path in targets:
        if path.suffix != ".lmdb":
            raise OptionError(f"OUTPUT: BasicSR reads an lmdb only if its name ends in .lmdb, got {path}.")
        if os.path.lexists(path):
            raise DataError(f"OUTPUT: {path} is there already and is not replaced; remove it, or name another.")
    if len(targets) > 1 and targets[0].resolve() == targets[1].resolve():
        raise DataError(f"--pair: both outputs are {targets[0]}; each side has its own lmdb.")


def _keys(sources: list[Source], report: LmdbReport) -> list[tuple[Source, str]]:
    taken, keyed = UniqueNames(), []
    for source in sources:
        # as a file of that name, for a key may be the folder of another one
        key = taken.take(f"{lmdb_key(source.name)}.png")[: -len(".png")]
        if len(key) > _LONGEST:
            raise DataError(f"{source.files[0]}: its key would be {len(key)} bytes long, lmdb takes {_LONGEST}.")
        if key != source.name:
            report.renamed.append((source.name, key))
        keyed.append((source, key))
    return keyed


def _values(source: Source, compression: int) -> Any:
    """Return what is stored of each file, or what is wrong with one of them: then neither is stored."""
    values = []
    try:
        for file in source.files:
            data = whole_bytes(file)
            image = decode(data, str(file), keep_grey=True)
            shape = (image.shape[0], image.shape[1], 1 if image.ndim == 2 else 3)
            values.append(_Value(as_png(image, compression), shape, hashlib.sha256(data).hexdigest(), has_alpha(file)))
    except DataError as error:
        return str(error)
    return values


class _Writer:
    """One lmdb that is being written: transactions of some size, and a map that grows with them."""

    def __init__(self, lmdb: Any, environment: Any, meta: Any, target: Path) -> None:
        self._lmdb, self._environment, self._meta, self._target = lmdb, environment, meta, target
        self._waiting: list[tuple[bytes, bytes]] = []
        self._bytes = 0

    @classmethod
    @contextlib.contextmanager
    def opened(cls, lmdb: Any, folder: Path, target: Path) -> Iterator[_Writer]:
        with _as_ours(lmdb, target):
            environment = lmdb.open(str(folder), map_size=_FIRST_MAP)
            try:
                with open(folder / "meta_info.txt", "w", encoding="ascii", newline="\n") as meta:
                    writer = cls(lmdb, environment, meta, target)
                    yield writer
                    writer.flush()
            finally:
                environment.close()

    def put(self, key: str, value: _Value, compression: int) -> None:
        """Take one image; it is on disk with the next transaction."""
        height, width, channels = value.shape
        self._meta.write(f"{key}.png ({height},{width},{channels}) {compression}\n")
        self._waiting.append((key.encode("ascii"), value.data))
        self._bytes += len(value.data)
        if self._bytes >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting; the map is doubled until it fits."""
        while self._waiting:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, data in self._waiting:
                        transaction.put(key, data)
            except self._lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            else:
                self._waiting, self._bytes = [], 0


@contextlib.contextmanager
def _as_ours(lmdb: Any, target: Path) -> Iterator[None]:
    """Turn lmdb's own errors (a full disk, a folder that cannot be written) into one sentence."""
    try:
        yield
    except lmdb.Error as error:
        raise CheckpointError(f"{target} cannot be written: {error}. Nothing is left of it.") from error
