"""What a data set consists of on disk, and which of its files are unreadable, too small or of different size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.data.image_store import ImageStore
from basicsr_plugins.data.images import image_problem, image_size

__all__ = ["Survey", "inspect", "survey_of"]


@dataclass
class Survey:
    """What one data set consists of.

    Attributes:
        where: YAML path.
        samples: One tuple of image paths per sample.
        stores: Where the images are, if they are no files (lmdb, .mat).
        expected: Published number of samples, if the options name it.
        missing: Degraded images without a clean one.
        unused: Clean images that nothing refers to.
        error: Why nothing could be found.
        crop: Smallest side that every image needs.
        sizes_may_differ: Whether pairs of different size are fine.
        scale: How many times larger the clean image of a pair is than the degraded one, which comes first.
    """

    where: str
    samples: list[tuple[str, ...]] = field(default_factory=list)
    stores: tuple[ImageStore, ...] = ()
    expected: Optional[int] = None
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    error: str = ""
    crop: Optional[int] = None
    sizes_may_differ: bool = False
    scale: int = 1

    def fit(self, sizes: Sequence[tuple[int, int]]) -> bool:
        """Whether the (h, w) of one sample belong together; a clean image may have a rest smaller than the scale."""
        return self.sizes_may_differ or all(
            0 <= large - self.scale * little < self.scale for size in sizes[1:] for little, large in zip(sizes[0], size)
        )

    def too_small(self, sizes: Sequence[tuple[int, int]]) -> bool:
        """Whether one of a sample's images has no place for the crop, which is one of the clean image."""
        scales = [self.scale if len(sizes) > 1 and not place else 1 for place in range(len(sizes))]
        return self.crop is not None and any(scale * min(size) < self.crop for scale, size in zip(scales, sizes))


def inspect(
    survey: Survey, full: bool = True, progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items
) -> list[str]:
    """Return what is wrong with the files of a survey, in order: unreadable, of different size, too small.

    Args:
        survey: Of one data set.
        full: Decode every image; else look at headers and tails only.
        progress: Wraps the iterator over the samples, given their number.
    """
    if survey.stores:
        return _inspect_stores(survey, progress)
    checked: dict[str, tuple[str, tuple[int, int] | None]] = {}  # a clean image may belong to 35 hazy ones

    def look(path: str) -> tuple[str, tuple[int, int] | None]:
        if path not in checked:
            problem = image_problem(path, full)
            checked[path] = (problem, None if problem else image_size(path))
        return checked[path]

    def problems_of(sample: tuple[str, ...]) -> list[str]:
        results = [look(path) for path in sample]
        problems = [f"{path} {problem}" for path, (problem, _) in zip(sample, results) if problem]
        sizes = [size for _, size in results if size is not None]
        if sizes and not survey.fit(sizes):
            pairs = ", ".join(f"{path} is {size[0]} x {size[1]}" for path, size in zip(sample, sizes))
            how = "different sizes" if survey.scale == 1 else f"not {survey.scale} times as large"
            problems.append(f"{pairs} (h x w): {how}")
        if survey.too_small(sizes):
            height, width = min(sizes, key=min)
            problems.append(f"{sample[0]} is {height} x {width} (h x w), smaller than gt_size {survey.crop}")
        return problems

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = list(progress(pool.map(problems_of, survey.samples), len(survey.samples)))
    return list(dict.fromkeys(problem for problems in found for problem in problems))


def _inspect_stores(survey: Survey, progress: Callable[[Iterable[Any], int], Iterable[Any]]) -> list[str]:
    problems = []
    for position in progress(range(len(survey.samples)), len(survey.samples)):
        try:
            sizes = [store.read(position).shape[:2] for store in survey.stores]
        except DataError as error:
            problems.append(str(error))
            continue
        if not survey.fit(sizes):
            problems.append(f"{survey.samples[position]}: sizes {sizes} differ")
        if survey.too_small(sizes):
            problems.append(f"{survey.samples[position]}: smaller than gt_size {survey.crop}")
    return problems


def survey_of(where: str, stores: Sequence[ImageStore], **known: Any) -> Survey:
    """Return the survey of stores that belong together; the images of an lmdb or a .mat file are read through them."""
    survey = Survey(where, list(zip(*(store.paths for store in stores))), **known)
    if any(store.lmdb_root or type(store) is not ImageStore for store in stores):
        survey.stores = tuple(stores)
    return survey
