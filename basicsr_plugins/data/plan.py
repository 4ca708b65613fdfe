"""The plan of a data set: its options, read once, and everything that is built from them before any image is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from basicsr_plugins.core.checked import result_of
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.data.survey import Survey

__all__ = ["DatasetPlan", "plan_of"]


class DatasetPlan:
    """What ``SomeDataset.plan(opt)`` returns; the check, the recipe and the data set itself all read it.

    Args:
        options: The parsed options.
        where: Their YAML path, for messages.
    """

    #: Label -> name in tables, for data sets that name their labels.
    label_names: Mapping[int, str] = {}

    def __init__(self, options: Any, where: str) -> None:
        self.options = options
        self.where = where

    @property
    def labels(self) -> int:
        """How many labels the samples can have: the largest one plus one."""
        return 1

    def check(self) -> None:
        """Check folders, pairing and the first ``verify`` images, without keeping any of them.

        Raises:
            OptionError: An option that only the files can refute.
            DataError: A missing, empty or broken folder; an image that is broken or smaller than the crop.
        """

    def survey(self) -> Survey:
        """Return the files, for ``basicsr-plugins data check``."""
        return Survey(self.where)


def plan_of(opt: Mapping[str, Any], where: str) -> Optional[DatasetPlan]:
    """Return the plan of a data set's section: that of the check, else a new one; None for a stock data set.

    Args:
        opt: The section, with its ``type``.
        where: Its YAML path.

    Raises:
        OptionError: The type is unknown, or an option is wrong.
    """
    found = result_of(opt, DatasetPlan)
    if found is None:
        make = getattr(lookup("dataset", opt["type"], f"{where}.type"), "plan", None)
        found = None if make is None else make(opt, where)
    return found
