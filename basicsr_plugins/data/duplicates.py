"""Which images of one pool show the same picture, and which images of a training set are in a test set."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.data.files import image_files
from basicsr_plugins.data.fingerprints import Fingerprint, fingerprint, perceptual_hash
from basicsr_plugins.data.hamming import hamming, near_pairs
from basicsr_plugins.data.parallel import in_parallel, worker_count

__all__ = ["Duplicate", "Group", "Search", "find_duplicates", "grouped", "matched"]


@dataclass(frozen=True)
class Duplicate:
    """A file that shows what another one shows.

    Args:
        file: The file.
        distance: Bits of the perceptual hash in which it differs from the one that stays; None without a hash.
        exact: Whether both files are equal byte for byte.
    """

    file: Fingerprint
    distance: Optional[int]
    exact: bool


@dataclass(frozen=True)
class Group:
    """Files that show the same picture.

    Args:
        keep: The one that stays: most pixels, then most bytes, then first; with ``against`` the test image.
        duplicates: The others.
    """

    keep: Fingerprint
    duplicates: list[Duplicate]


@dataclass
class Search:
    """What was found.

    Args:
        groups: Of files that show the same picture.
        files: All files of the pool that could be read, in order.
        failed: Files that could not be read, each with the reason.
        flat: Files of one colour, which are only compared byte for byte.
    """

    groups: list[Group] = field(default_factory=list)
    files: list[Fingerprint] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    flat: int = 0

    @property
    def kept(self) -> list[Fingerprint]:
        """The files of the pool without the duplicates."""
        gone = {item.file.path for group in self.groups for item in group.duplicates}
        return [file for file in self.files if file.path not in gone]


def find_duplicates(
    folders: Sequence[Path],
    against: Sequence[Path] = (),
    *,
    distance: int = 4,
    exact: bool = False,
    turned: bool = False,
    recursive: bool = False,
    leave_out: Optional[Path] = None,
    workers: Optional[int] = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
) -> Search:
    """Look for images that show the same picture.

    Args:
        folders: Of the images: one pool.
        against: Folders of other images, which stay: only what the pool shares with them is found.
        distance: Bits in which two perceptual hashes may differ, 0 to 32.
        exact: Compare bytes alone.
        turned: Find turned and mirrored copies too.
        recursive: Take sub-folders too.
        leave_out: A folder that is not looked into.
        workers: Threads.
        progress: Wraps the iterator over the files, given their number.

    Raises:
        OptionError: A number out of its range.
        DataError: No folder, or no image.
        DependencyError: ImageHash is not installed.
    """
    if not 0 <= distance <= 32:
        raise OptionError(f"--distance: must lie between 0 and 32 bits (of 64), got {distance}.")
    phash = None if exact else perceptual_hash()
    tests = _files(against, "--against", recursive, None)
    apart = {os.path.abspath(path) for path in tests}
    pool = [path for path in _files(folders, "FOLDER", recursive, leave_out) if os.path.abspath(path) not in apart]
    if not pool:
        raise DataError("FOLDER: holds no image that --against does not hold at the same place.")
    search = Search()

    def look(path: Path) -> Any:
        try:
            return fingerprint(path, phash, turned)
        except DataError as error:
            return str(error)

    found: list[Fingerprint] = []
    for result in progress(in_parallel(look, [*pool, *tests], worker_count(workers)), len(pool) + len(tests)):
        (search.failed if isinstance(result, str) else found).append(result)
    search.flat = 0 if exact else sum(not file.hashes for file in found)
    of_tests = {file.path for file in found} & set(tests)
    search.files = [file for file in found if file.path not in of_tests]
    if against:
        search.groups = matched(search.files, [file for file in found if file.path in of_tests], distance)
    else:
        search.groups = grouped(search.files, distance)
    return search


def grouped(files: Sequence[Fingerprint], distance: int) -> list[Group]:
    """Return the groups of files that are linked by equal bytes or near hashes, directly or through others."""
    parents = list(range(len(files)))

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    for first, second in _links(files, distance):
        # all of the one side are near all of the other: one of each is enough to bind them
        for one, other in [(first[0], item) for item in second] + [(second[0], item) for item in first]:
            parents[root(other)] = root(one)
    members = defaultdict(list)
    for item in range(len(files)):
        members[root(item)].append(item)
    groups = []
    for items in members.values():
        if len(items) > 1:
            keep, *others = sorted((files[item] for item in items), key=_worth)
            others.sort(key=lambda file: str(file.path))
            groups.append(Group(keep, [_duplicate(file, keep) for file in others]))
    return sorted(groups, key=lambda group: str(group.keep.path))


def matched(pool: Sequence[Fingerprint], tests: Sequence[Fingerprint], distance: int) -> list[Group]:
    """Return for each test image the files of the pool to which it is the nearest one, within the distance."""
    files = [*pool, *tests]
    best: dict[int, tuple[int, Duplicate]] = {}
    for first, second in _links(files, distance):
        for here, there in ((first, second), (second, first)):
            other = next((item for item in there if item >= len(pool)), None)
            if other is None:
                continue
            for item in here:
                if item < len(pool):
                    found = _duplicate(files[item], files[other])
                    if item not in best or _rank(found) < _rank(best[item][1]):
                        best[item] = other, found
    groups: dict[int, list[Duplicate]] = defaultdict(list)
    for item in sorted(best):
        groups[best[item][0]].append(best[item][1])
    return [Group(files[other], groups[other]) for other in sorted(groups)]


def _links(files: Sequence[Fingerprint], distance: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield two lists of positions: every file of the one is a copy of every file of the other."""
    by_content: dict[str, list[int]] = defaultdict(list)
    upright: dict[int, list[int]] = defaultdict(list)
    anyway: dict[int, list[int]] = defaultdict(list)  # a picture may have one hash for several ways
    for position, file in enumerate(files):
        by_content[file.sha256].append(position)
        if file.hashes:
            upright[file.hashes[0]].append(position)
        for value in set(file.hashes):
            anyway[value].append(position)
    for same in by_content.values():
        if len(same) > 1:
            yield same, same
    for value, here in upright.items():
        if len(anyway[value]) > 1:
            yield here, anyway[value]
    values = np.array(sorted(anyway), np.uint64)
    for first, second in zip(*(side.tolist() for side in near_pairs(values, distance))):
        one, other = int(values[first]), int(values[second])
        if one in upright:
            yield upright[one], anyway[other]
        if other in upright:
            yield upright[other], anyway[one]


def _duplicate(file: Fingerprint, keep: Fingerprint) -> Duplicate:
    distance = None
    if file.hashes and keep.hashes:
        distance = int(hamming(np.array(file.hashes, np.uint64), np.uint64(keep.hashes[0])).min())
    return Duplicate(file, distance, file.sha256 == keep.sha256)


def _rank(found: Duplicate) -> tuple[bool, int]:
    return not found.exact, 64 if found.distance is None else found.distance


def _worth(file: Fingerprint) -> tuple[bool, int, int, str]:
    # a link is worth less than what it leads to
    return file.path.is_symlink(), -file.size[0] * file.size[1], -file.bytes, str(file.path)


def _files(folders: Sequence[Path], where: str, recursive: bool, leave_out: Optional[Path]) -> list[Path]:
    """Return the images of all folders, each once, also where one folder is inside another."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in image_files(folder, where, recursive, leave_out=leave_out):
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())
