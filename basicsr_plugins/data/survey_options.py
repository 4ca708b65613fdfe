"""Survey every data set of an option file, children of mixes one by one, for ``basicsr-plugins data check``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from basicsr_plugins.core.errors import DataError, PluginError
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.data.all_in_one_dataset import AllInOnePlan
from basicsr_plugins.data.files import image_files
from basicsr_plugins.data.image_store import open_store
from basicsr_plugins.data.paired_rule_dataset import PairedRuleDataset
from basicsr_plugins.data.plan import DatasetPlan, plan_of
from basicsr_plugins.data.survey import Survey, survey_of

__all__ = ["survey_datasets"]


def survey_datasets(opt: Mapping[str, Any]) -> Iterator[Survey]:
    """Yield a survey of every data set in the ``datasets`` section, children of mixes one by one.

    Raises:
        DataError: There is no such section.
    """
    sections = opt.get("datasets")
    if not isinstance(sections, Mapping) or not sections:
        raise DataError("datasets: the option file has no such section.")
    for name, section in sections.items():
        where = f"datasets.{name}"
        options: Mapping[str, Any] = section if isinstance(section, Mapping) else {}
        try:
            plan = plan_of({"type": "", **options}, where)
        except PluginError as error:
            yield Survey(where, error=str(error))
            continue
        scale = opt.get("scale", 1)
        yield from _surveys(plan, options, where, scale if isinstance(scale, int) and scale > 1 else 1)


def _surveys(plan: Optional[DatasetPlan], opt: Mapping[str, Any], where: str, scale: int) -> Iterator[Survey]:
    if isinstance(plan, AllInOnePlan):
        for child in plan.children:
            yield from _surveys(child.plan, child.opt, child.where, scale)
        return
    try:
        yield plan.survey() if plan is not None else _survey_stock(opt, where, scale)
    except PluginError as error:
        yield Survey(where, error=str(error))


def _survey_stock(opt: Mapping[str, Any], where: str, scale: int) -> Survey:
    roots = {key: value for key, value in opt.items() if key.startswith("dataroot") and isinstance(value, str)}
    is_lmdb = isinstance(opt.get("io_backend"), Mapping) and opt["io_backend"].get("type") == "lmdb"
    backend: dict[str, Any] = {"io_backend": {"type": "lmdb"}} if is_lmdb else {}
    paired = lookup("dataset", opt["type"]).__name__ == "PairedImageDataset"
    if paired and opt.get("filename_tmpl", "{}") == "{}" and len(roots) == 2:
        same = {"type": "PairedRuleDataset", **roots, "gt_size": opt.get("gt_size"), **backend}
        survey = PairedRuleDataset.plan(same, where).survey()
        survey.scale = scale  # the data sets here are of restoration: both sides are of one size
        return survey
    # somebody else's data set: its folders can be looked at, its pairing is its own affair
    if is_lmdb:
        return survey_of(where, [open_store(root, where, key=key, **backend) for key, root in roots.items()])
    files = [str(path) for key, root in roots.items() for path in image_files(root, f"{where}.{key}", True)]
    return Survey(where, [(file,) for file in files])
