"""Several data sets as one: label by child, mixed by ratio."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Optional, Union

import numpy as np
import torch

from basicsr_plugins.core.checked import CheckedSection, result_of
from basicsr_plugins.core.errors import DataError, OptionError, PluginError
from basicsr_plugins.core.options import option, positive
from basicsr_plugins.core.registration import lookup, provides
from basicsr_plugins.data.files import need_folder
from basicsr_plugins.data.loader_options import LoaderOptions, parse_dataset
from basicsr_plugins.data.plan import DatasetPlan, plan_of
from basicsr_plugins.data.seeding import SampleSeeds, SeededDataset

__all__ = ["AllInOneDataset", "AllInOnePlan", "plan_children"]

#: Options that children without them take from their parent.
_INHERITED = ("gt_size", "use_hflip", "use_rot", "mean", "std")


#: Options of the loader and of the draws, which the mix has for all of its children.
_OF_THE_MIX = (
    "seed", "phase", "num_worker_per_gpu", "batch_size_per_gpu", "use_shuffle", "dataset_enlarge_ratio",
    "prefetch_mode", "num_prefetch_queue", "pin_memory", "persistent_workers",
)  # fmt: skip


@dataclass
class _Child:
    """One child: its class, its options, and how it takes part."""

    kind: Any
    opt: dict[str, Any]
    where: str
    ratio: float
    label: int
    labels: int
    name: str = ""
    plan: Optional[DatasetPlan] = None


@provides("dataset")
class AllInOneDataset(SeededDataset):
    """Mix several data sets of any registered type, ours or BasicSR's; the label says which one a sample is from.

    The children's samples keep ``lq``, ``gt`` and the paths and get ``degradation``. A child takes ``len x ratio``
    places per epoch; with ``balance`` each takes as many as the largest. Children of stock BasicSR, which draw from the
    global generators, are seeded per sample too, so they do not repeat their crops from epoch to epoch.

    Args:
        opt: The section of the option file; fields in ``AllInOneDataset.Options``.

    Raises:
        OptionError: A wrong option of it or of a child, with its YAML path.
        DataError: A child's files are missing.

    Example::

        train:
          name: three_tasks
          type: AllInOneDataset
          gt_size: 128
          children:
            - {type: PairedImageDataset, dataroot_lq: rain/input, dataroot_gt: rain/target, ratio: 5}    # label 0
            - {type: DegradationDataset, dataroot_gt: WED, degradations: [GaussianNoise, JPEG]}          # labels 1, 2
            - {type: PairedImageDataset, dataroot_lq: lol/low, dataroot_gt: lol/high, ratio: 60, label: 3}
    """

    @dataclass
    class Options(LoaderOptions):
        """Options of AllInOneDataset."""

        REQUIRED: ClassVar[tuple[str, ...]] = ("children",)

        children: Union[list[Any], dict[str, Any], None] = option(
            None, "list (or mapping by name) of data sets, each with 'ratio' and 'label' besides its own options"
        )
        balance: bool = option(False, "every child takes as many places as the largest; their ratios are not used")
        gt_size: Optional[int] = option(None, "handed to the children", check=positive)
        use_hflip: Optional[bool] = option(None, "handed to the children")
        use_rot: Optional[bool] = option(None, "handed to the children")
        mean: Optional[list[float]] = option(None, "handed to the children")
        std: Optional[list[float]] = option(None, "handed to the children")
        io_backend: Optional[dict[str, Any]] = option(None, "handed to stock children; {type: disk} if left out")

    def __init__(self, opt: Mapping[str, Any]) -> None:
        plan = result_of(opt, AllInOnePlan) or self.plan(opt)
        super().__init__(plan.options)
        self.opt = {**opt, "name": opt.get("name", "all_in_one")}
        self._children = plan.children
        self.datasets = [_build(child) for child in plan.children]
        self._adopt_children()
        self.num_degradations = plan.labels
        self.lengths = self._places(plan.where)
        self._ends = np.cumsum(self.lengths)
        self._shared_extras = self._extras_of_all(plan.where)

    @classmethod
    def plan(cls, opt: Mapping[str, Any], where: Optional[str] = None) -> AllInOnePlan:
        """Return the plan of the data set and of each child.

        Raises:
            OptionError: A wrong option of it or of a child.
        """
        return AllInOnePlan(*parse_dataset(cls.Options, opt, where))

    def _adopt_children(self) -> None:
        """Give every child, and the children of a child, this data set's seed and epoch and draws of its own."""
        for position, child in enumerate(self.datasets):
            if isinstance(child, SeededDataset):
                child.seeds.adopt(self.seeds, position)
            if isinstance(child, AllInOneDataset):
                child._adopt_children()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, repetition = self._serve(index), index // len(self)
        number = int(np.searchsorted(self._ends, place, side="right"))
        dataset, places = self.datasets[number], self.lengths[number]
        inner = place - int(self._ends[number]) + places + repetition * places
        if places % len(dataset):
            # a part of the child: another part in every epoch
            inner += self.seeds.epoch % len(dataset) * places
        if getattr(dataset, "takes_virtual_index", False) and self.options.phase == "train":
            sample = dataset[inner]
        elif isinstance(getattr(dataset, "seeds", None), SampleSeeds):
            sample = dataset[inner % len(dataset)]
        else:
            with _seeded_globals(self.seeds.generator(index)):
                sample = dataset[inner % len(dataset)]
        return self._labelled(sample, self._children[number])

    def _labelled(self, sample: dict[str, Any], child: _Child) -> dict[str, Any]:
        # one batch needs the same keys from every child
        label = child.label + int(sample.get("degradation", 0) if child.labels > 1 else 0)
        result: dict[str, Any] = {key: sample[key] for key in ("lq", "gt", "lq_path", "gt_path") if key in sample}
        result["degradation"] = label
        result.update({key: sample[key] for key in self._shared_extras if key in sample})
        if self._returns_map:
            labels = sample.get("degradation_map")
            if labels is None or child.labels == 1:
                labels = torch.zeros(sample["lq"].shape[-2:], dtype=torch.int64)
            result["degradation_map"] = labels + child.label
        return result

    @property
    def extras(self) -> set[str]:
        """What the samples hold of ``rain_mask`` and ``params``."""
        return set(self._shared_extras)

    def _extras_of_all(self, where: str) -> tuple[str, ...]:
        """Return the extras that samples keep: in training, where one batch needs the same keys, those of all."""
        held: list[set[str]] = [getattr(dataset, "extras", set()) for dataset in self.datasets]
        if self.options.phase != "train":
            return tuple(sorted(set().union(*held)))
        for key, asked_by in (("rain_mask", "return_mask"), ("params", "return_params")):
            lacking = [child.where for child, has in zip(self._children, held) if key not in has]
            asking = [child.where for child in self._children if child.opt.get(asked_by)]
            if asking and lacking:
                raise OptionError(
                    f"{asking[0]}.{asked_by}: {lacking[0]} returns no {key}, so no batch can be made. Ask it of "
                    "all children, or of none."
                )
        return tuple(sorted(set.intersection(*held)))

    @property
    def _returns_map(self) -> bool:
        return any(getattr(dataset, "_returns_map", False) for dataset in self.datasets)

    def _places(self, where: str) -> list[int]:
        sizes = [len(dataset) for dataset in self.datasets]
        if self.options.balance:
            return [max(sizes)] * len(sizes)
        return [max(1, round(size * child.ratio)) for size, child in zip(sizes, self._children)]


class AllInOnePlan(DatasetPlan):
    """The children with their own plans, labels, ratios and inherited options."""

    def __init__(self, options: AllInOneDataset.Options, where: str) -> None:
        super().__init__(options, where)
        self.children = plan_children(options, where)
        names: dict[int, list[str]] = {}
        for child in self.children:
            own: Mapping[int, str] = {0: child.name} if child.name and child.labels == 1 else {}
            if not own and child.plan is not None:
                own = child.plan.label_names
            for label, name in own.items():
                names.setdefault(child.label + label, []).append(name)
        #: the children's keys, or their own labels' names
        self.label_names = {label: "/".join(dict.fromkeys(shared)) for label, shared in sorted(names.items())}

    @property
    def labels(self) -> int:
        """The largest label of a child plus one."""
        return max(child.label + child.labels for child in self.children)

    def check(self) -> None:
        """Check every child; of a stock data set, its folders."""
        for child in self.children:
            if child.plan is not None:
                child.plan.check()
                continue
            for key, value in child.opt.items():
                if key.startswith("dataroot") and isinstance(value, str):
                    need_folder(value, f"{child.where}.{key}")


def plan_children(options: Any, where: str) -> list[_Child]:
    """Return the children that the options describe, with labels, ratios and inherited options."""
    given = options.children
    named = list(given.items()) if isinstance(given, Mapping) else list(enumerate(given))
    children, following = [], 0
    for key, item in named:
        here = f"{where}.children.{key}" if isinstance(given, Mapping) else f"{where}.children[{key}]"
        if not isinstance(item, Mapping) or "type" not in item:
            raise OptionError(f"{here}: expected the options of a data set, with its 'type', got {item!r}.")
        own = dict(item)
        ratio, label = own.pop("ratio", 1), own.pop("label", None)
        if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or ratio <= 0:
            raise OptionError(f"{here}.ratio: must be a number above 0, got {ratio!r}.")
        if label is not None and (not isinstance(label, int) or isinstance(label, bool) or label < 0):
            raise OptionError(f"{here}.label: expected a whole number of 0 or more, got {label!r}.")
        for name in _OF_THE_MIX:
            if name in own:
                raise OptionError(f"{here}.{name}: it belongs to the mix, which decides it for all; write it there.")
        kind = lookup("dataset", own["type"], f"{here}.type")
        own = _inherit(own, options, kind, f"{options.name or 'all_in_one'}_{key}")
        plan = plan_of(own, here)
        labels = 1 if plan is None else plan.labels
        label = following if label is None else label
        following = max(following, label + labels)
        name = str(key) if isinstance(given, Mapping) else ""
        children.append(_Child(kind, own, here, float(ratio), label, labels, name, plan))
    crops = {_crop(child): child.where for child in children}
    if options.phase == "train" and len(crops) > 1:
        listed = ", ".join(f"{size} ({where})" for size, where in crops.items())
        raise OptionError(f"{where}: the children's gt_size differ, so no batch can be made: {listed}.")
    return children


def _crop(child: _Child) -> Any:
    parsed = None if child.plan is None else child.plan.options
    return getattr(parsed, "crop", child.opt.get("gt_size"))


def _inherit(own: dict[str, Any], options: Any, kind: Any, name: str) -> dict[str, Any]:
    schema = getattr(kind, "Options", None)
    known = set(schema.__dataclass_fields__) if schema is not None else None
    own.setdefault("name", name)
    own["phase"] = options.phase
    for key in _INHERITED:
        value = getattr(options, key)
        if value is not None and key not in own and (known is None or key in known):
            own[key] = value
    if known is None:
        # BasicSR sets or expects these at the top level only
        for key, value in {"scale": 1, "io_backend": options.io_backend or {"type": "disk"}}.items():
            own.setdefault(key, value)
        own.setdefault("use_hflip", True)
        own.setdefault("use_rot", True)
        if options.phase == "train":
            own.setdefault("gt_size", 128)
    for key, value in own.items():
        if key.startswith("dataroot") and isinstance(value, str):
            own[key] = os.path.expanduser(value)
    return own


def _build(child: _Child) -> Any:
    try:
        return child.kind(_copy(child.opt) if child.plan is None else CheckedSection(child.opt, child.plan))
    except PluginError:
        raise
    except (AssertionError, KeyError, OSError, ValueError) as error:  # what stock data sets raise
        raise DataError(f"{child.where}: {child.opt['type']} refuses its options: {error}") from error


def _copy(opt: Mapping[str, Any]) -> dict[str, Any]:
    # stock data sets pop from their io_backend
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in opt.items()}


@contextlib.contextmanager
def _seeded_globals(rng: np.random.Generator) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators for one sample of a stock data set, then put them back."""
    python, numpy, state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    seed = int(rng.integers(1 << 32))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU's generator too
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(state)
