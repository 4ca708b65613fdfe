"""Paired images by any naming rule of the public data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional

from basicsr_plugins.core.checked import result_of
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.options import non_negative, option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.data.files import first_few, need_folder
from basicsr_plugins.data.image_store import ImageStore, open_store
from basicsr_plugins.data.loader_options import PatchOptions, parse_dataset
from basicsr_plugins.data.mat_store import MatStore
from basicsr_plugins.data.pairing import PAIR_RULES, Pairing, check_rule, fitting_rule, pair_by_name, pair_from_list
from basicsr_plugins.data.patches import as_tensor, choose_patch, cut
from basicsr_plugins.data.plan import DatasetPlan
from basicsr_plugins.data.ram_cache import cached
from basicsr_plugins.data.seeding import SeededDataset
from basicsr_plugins.data.survey import Survey, survey_of

__all__ = ["PairedRuleDataset"]


@provides("dataset")
class PairedRuleDataset(SeededDataset):
    """Degraded and clean images on disk, paired by name, by a list, or side by side in one picture.

    Rules (``pair``): ``same``, ``same_stem``, ``prefix:k``, ``replace:a->b``, ``append:a``, ``order``, ``folder:a->b``,
    ``txtlist``, ``json``, ``concat``, ``mat``; see ``basicsr_plugins.data.pairing.PAIR_RULES``. The clean file may have
    any image ending.

    Each sample is a dict: ``lq``, ``gt`` float32 ``(3, h, w)`` RGB in [0, 1], ``degradation`` (int), ``lq_path``,
    ``gt_path``.

    Args:
        opt: The section of the option file; fields in ``PairedRuleDataset.Options``.

    Raises:
        OptionError: A wrong option, with its YAML path.
        DataError: A missing folder, a degraded image without a clean one (unless ``unpaired: skip``).

    Example::

        train:
          name: OTS
          type: PairedRuleDataset
          dataroot_lq: datasets/RESIDE/OTS/hazy     # 0025_0.8_0.04.jpg
          dataroot_gt: datasets/RESIDE/OTS/clear    # 0025.jpg or 0025.png
          pair: prefix:1
          gt_size: 128
    """

    @dataclass
    class Options(PatchOptions):
        """Options of PairedRuleDataset."""

        REQUIRED: ClassVar[tuple[str, ...]] = ("dataroot_lq",)

        dataroot_lq: Optional[str] = option(None, "folder (lmdb, .mat file) of the degraded images")
        dataroot_gt: Optional[str] = option(None, "folder of the clean images; dataroot_lq if left out")
        pair: str = option("same", f"pairing rule: {', '.join(PAIR_RULES)}")
        pair_list: Optional[str] = option(None, "list file of the rules txtlist and json")
        list_order: Literal["gt_lq", "lq_gt"] = option("gt_lq", "columns of a text list", source="RSBlur, SPA-Data")
        lq_half: Literal["left", "right"] = option("left", "where the degraded half is, with 'concat'")
        mat_key_lq: Optional[str] = option(None, "array in the .mat file; left out, its only one")
        mat_key_gt: Optional[str] = option(None, "array in the .mat file; left out, its only one")
        recursive: bool = option(False, "look into sub-folders too")
        unpaired: Literal["error", "skip"] = option("error", "what to do with a degraded image without a clean one")
        mismatch: Literal["error", "centre"] = option(
            "error", "sizes differ: refuse, or cut the larger one around its centre (SOTS indoor, ITS)"
        )
        label: int = option(0, "returned as 'degradation'", check=non_negative)

        def idle(self) -> dict[str, str]:
            """Return what belongs to other pairing rules."""
            rule = self.pair.partition(":")[0]
            found = super().idle()
            owners = {"list_order": "txtlist", "lq_half": "concat", "mat_key_lq": "mat", "mat_key_gt": "mat"}
            found |= {name: f"it belongs to pair: {owner}" for name, owner in owners.items() if rule != owner}
            if rule == "concat":
                found["dataroot_gt"] = "with pair: concat one picture holds both halves"
            if rule in ("txtlist", "json", "mat"):
                found["recursive"] = f"pair: {rule} names the images"
            if rule in ("mat", "concat") or (self.io_backend or {}).get("type") == "lmdb":
                found["unpaired"] = "each image has its partner by its place"
            return found

    def __init__(self, opt: Mapping[str, Any]) -> None:
        plan = result_of(opt, PairedPlan) or self.plan(opt)
        options = plan.options
        super().__init__(options)
        self.opt = {**opt, "name": opt.get("name", "paired")}
        lq, gt = open_pair(options, plan.where)
        self.lq = cached(lq, options)
        self.gt = self.lq if gt is lq else cached(gt, options)
        self.num_degradations = plan.labels

    @classmethod
    def plan(cls, opt: Mapping[str, Any], where: Optional[str] = None) -> PairedPlan:
        """Return the plan that these options describe.

        Raises:
            OptionError: A wrong option.
        """
        return PairedPlan(*parse_dataset(cls.Options, opt, where))

    def __len__(self) -> int:
        return len(self.lq)

    def __getitem__(self, index: int) -> dict[str, Any]:
        options, position = self.options, self._serve(index)
        rng = self.seeds.generator(index)
        lq_path, gt_path = self.lq.paths[position], self.gt.paths[position]
        lq = self.lq.read(position)
        if options.pair == "concat":
            left, right = lq[:, : lq.shape[1] // 2], lq[:, lq.shape[1] - lq.shape[1] // 2 :]
            lq, gt = (left, right) if options.lq_half == "left" else (right, left)
        else:
            gt = self.gt.read(position)
        if lq.shape != gt.shape:
            if options.mismatch == "error":
                raise DataError(_mismatch(lq_path, lq.shape[:2], gt_path, gt.shape[:2]))
            size = min(lq.shape[0], gt.shape[0]), min(lq.shape[1], gt.shape[1])
            lq, gt = _centre(lq, size), _centre(gt, size)
        patch = choose_patch(lq.shape, options, rng, lq_path)
        return {
            "lq": as_tensor(cut(lq, patch), options.mean, options.std),
            "gt": as_tensor(cut(gt, patch), options.mean, options.std),
            "degradation": options.label,
            "lq_path": lq_path,
            "gt_path": gt_path,
        }


class PairedPlan(DatasetPlan):
    """Pairs by a rule; the files are looked at by ``check``, ``survey`` and the data set itself."""

    @property
    def labels(self) -> int:
        """The data set's own label plus one."""
        return int(self.options.label) + 1

    @property
    def _crop(self) -> Optional[int]:
        """Smallest side that every image needs."""
        return None if self.options.pad_small or self.options.pair == "concat" else self.options.crop

    def check(self) -> None:
        """Check the pairing and the first ``verify`` pairs."""
        options, where = self.options, self.where
        lq, gt = open_pair(options, where)
        lq.verify(f"{where}.dataroot_lq", self._crop, options.verify)
        if gt is not lq:
            gt.verify(f"{where}.dataroot_gt", self._crop, options.verify)
            _same_sizes(lq, gt, options, where)

    def survey(self) -> Survey:
        """Return the pairs and what is left over."""
        options, where = self.options, self.where
        known: dict[str, Any] = {
            "expected": options.expected_count,
            "crop": self._crop,
            "sizes_may_differ": options.mismatch == "centre",
        }
        if options.pair in ("concat", "mat") or options.io_backend is not None:
            lq, gt = open_pair(options, where)
            return survey_of(where, [lq] if gt is lq else [lq, gt], **known)
        pairing = find_pairs(options, where)
        return Survey(
            where,
            [(str(lq), str(gt)) for lq, gt in pairing.pairs],
            missing=pairing.missing,
            unused=[str(path) for path in pairing.unused],
            **known,
        )


def open_pair(options: PairedRuleDataset.Options, where: str) -> tuple[ImageStore, ImageStore]:
    """Return the two stores of a data set, in the same order; the same one twice for ``concat``.

    Raises:
        OptionError: A wrong rule.
        DataError: Missing folders or partners.
    """
    rule, _ = check_rule(options.pair, f"{where}.pair")
    backend = (options.io_backend or {}).get("type", "disk")
    if backend == "lmdb":
        lq = open_store(options.dataroot_lq or "", where, key="dataroot_lq", io_backend=options.io_backend)
        gt = open_store(options.dataroot_gt or "", where, io_backend=options.io_backend)
        if lq.paths != gt.paths:
            apart = sorted(set(lq.paths) ^ set(gt.paths))
            raise DataError(f"{where}: the two lmdb have different keys: {first_few(apart)}.")
        return lq, gt
    if rule == "concat":
        store = open_store(options.dataroot_lq or "", where, key="dataroot_lq", recursive=options.recursive)
        return store, store
    if rule == "mat":
        lq = MatStore(options.dataroot_lq, options.mat_key_lq, f"{where}.dataroot_lq")
        gt = MatStore(options.dataroot_gt or options.dataroot_lq, options.mat_key_gt, f"{where}.dataroot_gt")
        if len(lq) != len(gt):
            raise DataError(f"{where}: {options.dataroot_lq} holds {len(lq)} images, {options.dataroot_gt} {len(gt)}.")
        return lq, gt
    pairing = find_pairs(options, where)
    if pairing.missing and options.unpaired == "error":
        raise DataError(
            f"{where}.pair: {len(pairing.missing)} of {len(pairing.missing) + len(pairing.pairs)} degraded images have "
            f"no clean one by the rule {options.pair!r}: {first_few(pairing.missing)}. {_other_rule(options, where)}"
            "'unpaired: skip' leaves them out."
        )
    if not pairing.pairs:
        raise DataError(f"{where}.pair: no pair by the rule {options.pair!r}: {first_few(pairing.missing)}.")
    return ImageStore([str(lq) for lq, _ in pairing.pairs]), ImageStore([str(gt) for _, gt in pairing.pairs])


def _other_rule(options: PairedRuleDataset.Options, where: str) -> str:
    if options.pair_list is not None:
        return ""
    lq_root = Path(options.dataroot_lq or "").expanduser()
    gt_root = Path(options.dataroot_gt or options.dataroot_lq or "").expanduser()
    rule = fitting_rule(lq_root, gt_root, where, options.recursive)
    return f"By 'pair: {rule}' each has one; " if rule else "Another rule may fit, or "


def find_pairs(options: PairedRuleDataset.Options, where: str) -> Pairing:
    """Return the pairs and what is left over, for the rules on names and lists."""
    rule, _ = check_rule(options.pair, f"{where}.pair")
    lq_root = need_folder(options.dataroot_lq or "", f"{where}.dataroot_lq")
    gt_root = need_folder(options.dataroot_gt or options.dataroot_lq or "", f"{where}.dataroot_gt")
    if rule in ("txtlist", "json"):
        if options.pair_list is None:
            raise OptionError(f"{where}.pair_list: this option is required by the rule {rule!r}.")
        file = Path(options.pair_list).expanduser()
        return pair_from_list(rule, file, lq_root, gt_root, options.list_order, where)
    if options.pair_list is not None:
        raise OptionError(f"{where}.pair_list: only read by the rules 'txtlist' and 'json', the rule is {rule!r}.")
    return pair_by_name(lq_root, gt_root, options.pair, where, options.recursive)


def _same_sizes(lq: ImageStore, gt: ImageStore, options: PairedRuleDataset.Options, where: str) -> None:
    if options.mismatch != "error":
        return
    wrong = []
    for position in range(min(options.verify, len(lq))):
        sizes = lq.size(position), gt.size(position)
        if sizes[0] != sizes[1]:
            wrong.append(_mismatch(lq.paths[position], sizes[0], gt.paths[position], sizes[1]))
    if wrong:
        raise DataError(f"{where}: {len(wrong)} pair(s) of different size: {first_few(wrong)}")


def _mismatch(lq_path: str, lq: tuple[int, ...], gt_path: str, gt: tuple[int, ...]) -> str:
    text = f"{lq_path} is {lq[0]} x {lq[1]}, {gt_path} is {gt[0]} x {gt[1]} (h x w); "
    factor = round(gt[0] / max(lq[0], 1))
    if factor > 1 and all(abs(large / factor - small) < 1 for large, small in zip(gt, lq)):
        return text + (
            f"the degraded image is {factor} times smaller: that is super-resolution by 'scale: {factor}' and stock's "
            "PairedImageDataset, or the smaller image has to be enlarged first; cutting would pair other content"
        )
    return text + "'mismatch: centre' cuts the larger one around its centre"


def _centre(image: Any, size: tuple[int, int]) -> Any:
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]
