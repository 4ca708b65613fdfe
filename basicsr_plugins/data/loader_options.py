"""The options that every data set of ours has: BasicSR's own keys, with their stock meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional, TypeVar, Union

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import non_negative, option, parse, positive

__all__ = ["LoaderOptions", "PatchOptions", "parse_dataset", "phase_of"]

Options = TypeVar("Options", bound="LoaderOptions")


@dataclass
class LoaderOptions:
    """What BasicSR's loader and training script read from the options of any data set."""

    type: Optional[str] = option(None, "registered name of the data set class")
    name: Optional[str] = option(None, "name in the log")
    phase: Optional[Literal["train", "val", "test"]] = option(None, "set by BasicSR from the key of the section")
    scale: int = option(
        1, "of super-resolution; these data sets have 1", check=lambda v: None if v == 1 else "must be 1"
    )
    num_worker_per_gpu: Optional[int] = option(None, "loader processes", check=non_negative)
    batch_size_per_gpu: Optional[int] = option(None, "samples per step and device", check=positive)
    use_shuffle: Optional[bool] = option(None, "read by older option files only")
    dataset_enlarge_ratio: Union[int, Literal["auto"]] = option(1, "virtual repetitions of the data set per epoch")
    prefetch_mode: Optional[Literal["cpu", "cuda"]] = option(None, "prefetcher of the training script")
    num_prefetch_queue: int = option(1, "queue of the 'cpu' prefetcher", check=positive)
    pin_memory: bool = option(False, "page-locked batches, which copies to a GPU need not wait for")
    persistent_workers: bool = option(False, "keep the loader's processes between epochs")
    seed: Optional[int] = option(None, "base seed of every draw; left out, the option file's manual_seed")

    def idle(self) -> dict[str, str]:
        """Return the options that do nothing beside the others, each with the reason; written, they are refused."""
        return {}


@dataclass
class PatchOptions(LoaderOptions):
    """What a data set that cuts patches from images has besides."""

    io_backend: Optional[dict[str, Any]] = option(None, "{type: disk} or {type: lmdb}")
    gt_size: Optional[int] = option(
        None, "side of the training crop (default 128), or of the centre crop in validation (default: whole image)",
        check=positive,
    )  # fmt: skip
    use_hflip: bool = option(True, "flip left to right half of the time, in training")
    use_rot: bool = option(True, "flip top to bottom and swap axes half of the time each, in training")
    multiple_of: int = option(1, "crop validation images to a multiple of this", check=positive)
    pad_small: bool = option(False, "mirror the edges of an image smaller than gt_size instead of refusing it")
    mean: Optional[list[float]] = option(None, "subtracted per channel from lq and gt")
    std: Optional[list[float]] = option(None, "divides lq and gt per channel")
    verify: int = option(1000, "images looked at (header and tail) before training starts", check=non_negative)
    expected_count: Optional[int] = option(None, "published number of images; 'data check' compares", check=positive)
    cache: Literal["none", "ram"] = option("none", "'ram' keeps decoded images, shared by the loader's processes")
    cache_limit_gb: float = option(
        8.0, "most memory that the cache takes; the rest is decoded each time", check=positive
    )

    def idle(self) -> dict[str, str]:
        """Return what does nothing beside the other options."""
        found = {}
        if self.phase == "train":
            found["multiple_of"] = "training crops have the side gt_size"
        elif self.gt_size is not None:
            found["multiple_of"] = "gt_size says the side of the crop"
        if self.cache == "none":
            found["cache_limit_gb"] = "there is no cache; it needs cache: ram"
        if (self.io_backend or {}).get("type") == "lmdb":
            found |= dict.fromkeys(("recursive", "meta_info_file"), "an lmdb brings its own list of images")
        elif getattr(self, "meta_info_file", None):
            found["recursive"] = "meta_info_file names the files"
        return found

    @property
    def crop(self) -> Optional[int]:
        """Side of the crop in this phase; None means the whole image."""
        return self.gt_size if self.gt_size is not None or self.phase != "train" else 128


def phase_of(opt: Mapping[str, Any], where: str) -> str:
    """Return ``train``, ``val`` or ``test``: the option, else what BasicSR will make of the section's key."""
    given = opt.get("phase")
    if given is not None:
        return str(given)
    section = where.rsplit("datasets.", maxsplit=1)[-1].split(".", maxsplit=1)[0].split("_", maxsplit=1)[0]
    return section if section in ("val", "test") else "train"


def parse_dataset(schema: type[Options], opt: Mapping[str, Any], where: str | None) -> tuple[Options, str]:
    """Return the checked options of a data set, and its YAML path.

    Args:
        schema: The data set's options dataclass.
        opt: The section of the option file.
        where: Its YAML path; None when BasicSR builds the data set, which does not say.

    Raises:
        OptionError: See ``basicsr_plugins.core.options.parse``.
    """
    if not isinstance(opt, Mapping):
        raise OptionError(f"{where or 'datasets'}: expected a mapping of options, got {opt!r}.")
    path = where or f"datasets.{opt.get('phase', 'train')}"
    if where is None and opt.get("name"):
        path = f"{path} ({opt['name']})"
    parsed = parse(schema, {**opt, "phase": phase_of(opt, path)}, path)
    for name in getattr(schema, "REQUIRED", ()):
        if getattr(parsed, name) in (None, "", []):
            field = next(field for field in dataclasses.fields(schema) if field.name == name)
            raise OptionError(f"{path}.{name}: this option is required. It is the {field.metadata['help']}.")
    for name in ("mean", "std"):
        values = getattr(parsed, name, None)
        if values is not None and len(values) != 3:
            raise OptionError(f"{path}.{name}: expected three numbers, one per channel, got {values!r}.")
        if name == "std" and values is not None and not all(values):
            raise OptionError(f"{path}.std: images are divided by it, so no number may be 0, got {values!r}.")
    further = sorted(set(getattr(parsed, "io_backend", None) or {}) - {"type"})
    if further:
        raise OptionError(f"{path}.io_backend.{further[0]}: only `type` is read, disk or lmdb; remove the others.")
    for name, reason in parsed.idle().items():
        if name in opt and getattr(parsed, name) != _default(schema, name):
            raise OptionError(f"{path}.{name}: it does nothing here: {reason}. Remove one of them.")
    return parsed, path


def _default(schema: type[Any], name: str) -> Any:
    field = schema.__dataclass_fields__[name]
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()
