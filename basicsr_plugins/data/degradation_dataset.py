"""Clean images in, degraded pairs out: every degradation of ours, made on the fly from a seed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional

import numpy as np
import torch

from basicsr_plugins.core.checked import result_of
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import fraction, option, parse
from basicsr_plugins.core.registration import provides
from basicsr_plugins.data.depth_maps import DepthMaps
from basicsr_plugins.data.image_store import ImageStore, open_store
from basicsr_plugins.data.loader_options import PatchOptions, parse_dataset
from basicsr_plugins.data.patches import as_tensor, choose_patch, cut
from basicsr_plugins.data.plan import DatasetPlan
from basicsr_plugins.data.ram_cache import cached
from basicsr_plugins.data.seeding import SeededDataset
from basicsr_plugins.data.survey import Survey, survey_of
from basicsr_plugins.degradations import Degradation, Degraded, build_degradation
from basicsr_plugins.degradations.cutmix import CutMixOptions, degradation_cutmix
from basicsr_plugins.degradations.rain_degradation import rain_mask

__all__ = ["DegradationDataset", "DegradationPlan", "open_clean"]


@dataclass
class _Entry:
    """One entry of ``degradations``."""

    degradation: Degradation
    label: int
    weight: float
    name: str


class DegradationPlan(DatasetPlan):
    """The degradations, built once, with labels and weights, and the CutMix options."""

    def __init__(self, options: DegradationDataset.Options, where: str) -> None:
        super().__init__(options, where)
        self.entries = _entries(options.degradations, where)
        self.cutmix = _cutmix(options, self.entries, where)
        if options.dataroot_depth and not any(entry.degradation.uses_depth for entry in self.entries):
            raise OptionError(
                f"{where}.dataroot_depth: none of the degradations takes a depth map, as Haze does. Remove one of them."
            )
        # a validation that says nothing shares its list with the training, which draws by weight
        weighted = next((entry for entry in self.entries if entry.weight != 1), None)
        if options.assign in ("cycle", "all") and weighted is not None:
            raise OptionError(
                f"{where}.degradations: {weighted.name} has a weight, but assign: {options.assign} draws nothing by "
                "weight. Remove the weights, or take assign: random."
            )
        names: dict[int, list[str]] = {}
        for entry in self.entries:
            names.setdefault(entry.label, []).append(entry.name)
        #: the degradations' names, joined where they share a label
        self.label_names = {label: "/".join(dict.fromkeys(shared)) for label, shared in sorted(names.items())}

    @property
    def labels(self) -> int:
        """The largest label plus one."""
        return max(entry.label for entry in self.entries) + 1

    def check(self) -> None:
        """Check the folder, the first ``verify`` images and the depth maps."""
        options = self.options
        store = open_clean(options, self.where)
        store.verify(f"{self.where}.dataroot_gt", None if options.pad_small else options.crop, options.verify)
        DepthMaps.from_options(options, store, self.where)

    def survey(self) -> Survey:
        """Return the clean images."""
        options = self.options
        crop = None if options.pad_small else options.crop
        return survey_of(self.where, [open_clean(options, self.where)], expected=options.expected_count, crop=crop)


@provides("dataset")
class DegradationDataset(SeededDataset):
    """Pairs made on the fly from clean images.

    Each sample is a dict: ``lq``, ``gt`` float32 ``(3, h, w)`` RGB in [0, 1], ``degradation`` (int label), ``lq_path``
    and ``gt_path``; on request ``degradation_map`` (int64 ``(h, w)``), ``rain_mask`` (float32 ``(1, h, w)``), and
    ``params`` (JSON text). All draws depend on seed, epoch and index alone; validation never changes.

    Args:
        opt: The section of the option file; fields in ``DegradationDataset.Options``.

    Raises:
        OptionError: A wrong option, with its YAML path.
        DataError: A missing or empty folder.

    Example::

        train:
          name: photos
          type: DegradationDataset
          dataroot_gt: datasets/photos/train
          gt_size: 128
          degradations:
            - {type: Rain, preset: medium}       # label 0
            - {type: GaussianNoise, sigma: 25}   # label 1
            - Haze                               # label 2
    """

    @dataclass
    class Options(PatchOptions):
        """Options of DegradationDataset."""

        REQUIRED: ClassVar[tuple[str, ...]] = ("dataroot_gt", "degradations")

        dataroot_gt: Optional[str] = option(None, "folder (or lmdb) of the clean images")
        meta_info_file: Optional[str] = option(None, "list of the files to use, relative to dataroot_gt")
        recursive: bool = option(False, "look into sub-folders too")
        dataroot_depth: Optional[str] = option(None, "folder of depth maps with the clean images' stems, for haze")
        depth_far: Literal["white", "black"] = option("white", "which end of the depth maps is far away")
        degradations: list[Any] = option([], "list of degradations, each a name or a mapping")
        assign: Optional[Literal["random", "cycle", "all"]] = option(
            None,
            "which degradation a sample gets: drawn by weight (default in training), in turn, or every image with "
            "every degradation (default in validation, n times as many samples)",
        )
        cutmix: Optional[dict[str, Any]] = option(None, "degradation CutMix: {probability: 0.5, alpha: 1, regions: 1}")
        return_map: bool = option(False, "also return degradation_map")
        return_mask: bool = option(False, "also return rain_mask")
        return_params: bool = option(False, "also return params, as JSON text")
        mask_threshold: float = option(10 / 255, "of rain_mask, on the rain layer as added", check=fraction)

        def idle(self) -> dict[str, str]:
            """Return what does nothing beside the other options."""
            found = super().idle()
            if self.dataroot_depth is None:
                found["depth_far"] = "there are no depth maps; it needs dataroot_depth"
            if not self.return_mask:
                found["mask_threshold"] = "no mask is returned; it needs return_mask: true"
            return found

    def __init__(self, opt: Mapping[str, Any]) -> None:
        plan = result_of(opt, DegradationPlan) or self.plan(opt)
        super().__init__(plan.options)
        self.opt = {**opt, "name": opt.get("name", "degradations")}
        self.entries, self.cutmix = plan.entries, plan.cutmix
        store = open_clean(plan.options, plan.where)
        self.store = cached(store, plan.options)
        self.depth = DepthMaps.from_options(plan.options, store, plan.where)
        self.num_degradations = plan.labels
        weights = np.array([entry.weight for entry in self.entries], dtype=np.float64)
        self._cumulative = np.cumsum(weights / weights.sum())

    @classmethod
    def plan(cls, opt: Mapping[str, Any], where: Optional[str] = None) -> DegradationPlan:
        """Return the plan that these options describe.

        Raises:
            OptionError: A wrong option.
        """
        return DegradationPlan(*parse_dataset(cls.Options, opt, where))

    @property
    def assign(self) -> str:
        """Which degradation a sample gets: ``random``, ``cycle`` or ``all``."""
        return self.options.assign or ("random" if self.options.phase == "train" else "all")

    def __len__(self) -> int:
        return len(self.store) * (len(self.entries) if self.assign == "all" else 1)

    def __getitem__(self, index: int) -> dict[str, Any]:
        options, place = self.options, self._serve(index)
        rng = self.seeds.generator(index)
        position, chosen = self._place(place, index, rng)
        path = self.store.paths[position]
        image = self.store.read(position)
        patch = choose_patch(image.shape, options, rng, path)
        gt = cut(image, patch)
        depth = self.depth.read(position, image.shape[:2], patch) if self.depth is not None else None

        entry = self.entries[chosen]
        label_map: Optional[np.ndarray]
        if self.cutmix is not None and rng.random() < self.cutmix.probability:
            picked = self._unlike_the_one_before(chosen, self.cutmix.regions, rng)
            result, label_map = degradation_cutmix(
                gt, [(e.degradation, e.label) for e in picked], rng, self.cutmix, depth
            )
            label = int(np.argmax(np.bincount(label_map.ravel(), minlength=self.num_degradations)))
        else:
            result, label = entry.degradation(gt, rng, depth=depth), entry.label
            label_map = np.full(gt.shape[:2], label, dtype=np.int64) if self._returns_map else None

        sample = {
            "lq": as_tensor(result.image, options.mean, options.std),
            "gt": as_tensor(gt, options.mean, options.std),
            "degradation": label,
            "lq_path": _lq_name(path, entry.name),
            "gt_path": path,
        }
        return {**sample, **self._extras(result, label_map, gt.shape[:2])}

    @property
    def extras(self) -> set[str]:
        """What the samples hold of ``rain_mask`` and ``params``."""
        wanted = {"rain_mask": self.options.return_mask, "params": self.options.return_params}
        return {key for key, is_wanted in wanted.items() if is_wanted}

    @property
    def _returns_map(self) -> bool:
        return self.options.return_map or self.cutmix is not None

    def _extras(self, result: Degraded, label_map: np.ndarray | None, size: tuple[int, int]) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if label_map is not None:
            extras["degradation_map"] = torch.from_numpy(label_map)
        if self.options.return_mask:
            layer = result.layers.get("rain", np.zeros(size, dtype=np.float32))
            mask = rain_mask(layer, self.options.mask_threshold)
            extras["rain_mask"] = torch.from_numpy(mask.astype(np.float32))[None]
        if self.options.return_params:
            extras["params"] = json.dumps(result.params)
        return extras

    def _place(self, position: int, index: int, rng: np.random.Generator) -> tuple[int, int]:
        """Return which image and which degradation a sample is made of."""
        if self.assign == "all":
            return divmod(position, len(self.entries))
        if self.assign == "cycle":
            # shifted by one with every pass, so that each image meets every degradation in as many passes
            return position, (position + index // len(self.store) + self.seeds.epoch) % len(self.entries)
        chosen = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        return position, min(chosen, len(self.entries) - 1)

    def _unlike_the_one_before(self, first: int, regions: int, rng: np.random.Generator) -> list[_Entry]:
        chosen = [first]
        for _ in range(regions):
            step = 1 + int(rng.integers(len(self.entries) - 1))
            chosen.append((chosen[-1] + step) % len(self.entries))
        return [self.entries[position] for position in chosen]


def _entries(given: list[Any], where: str) -> list[_Entry]:
    entries = []
    for position, item in enumerate(given):
        here = f"{where}.degradations[{position}]"
        own = dict(item) if isinstance(item, Mapping) else {"type": item}
        label, weight, name = own.pop("label", position), own.pop("weight", 1.0), own.pop("name", None)
        if not isinstance(label, int) or isinstance(label, bool) or label < 0:
            raise OptionError(f"{here}.label: expected a whole number of 0 or more, got {label!r}.")
        if not isinstance(weight, (int, float)) or weight <= 0:
            raise OptionError(f"{here}.weight: must be above 0, got {weight!r}.")
        degradation = build_degradation(own, here)
        entries.append(_Entry(degradation, label, float(weight), str(name or degradation.short)))
    return entries


def _cutmix(options: Any, entries: list[_Entry], where: str) -> CutMixOptions | None:
    if options.cutmix is None:
        return None
    if len(entries) < 2:
        raise OptionError(f"{where}.cutmix: needs at least two degradations to mix, {len(entries)} given.")
    return parse(CutMixOptions, options.cutmix, f"{where}.cutmix")


def open_clean(options: Any, where: str) -> ImageStore:
    """Return the clean images that the options name."""
    return open_store(
        options.dataroot_gt,
        where,
        io_backend=options.io_backend,
        meta_info_file=options.meta_info_file,
        recursive=options.recursive,
    )


def _lq_name(path: str, degradation: str) -> str:
    # no such file exists; BasicSR names the pictures it saves after this path
    stem, suffix = os.path.splitext(path)
    return f"{stem}_{degradation}{suffix}"
