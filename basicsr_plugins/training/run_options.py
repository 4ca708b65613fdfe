"""One option file, read once: what the check, the constructors and the running recipe all look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from basicsr_plugins.core.checked import settings_of
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.data.plan import DatasetPlan, plan_of
from basicsr_plugins.training.settings import TrainSettings, ValSettings

__all__ = ["RunOptions"]


@dataclass
class RunOptions:
    """The checked options of a run.

    Attributes:
        opt: The dictionary as BasicSR passes it around: names, paths and ``network_*`` are read from it.
        train: Section ``train``; None in a test.
        val: Section ``val``.
        sections: The sections that only this recipe has (``adapter``, ``blend``), by key.
        plans: The plans of the data sets by section; None for one of BasicSR's own.
    """

    opt: Mapping[str, Any]
    train: Any
    val: Any
    sections: dict[str, Any] = field(default_factory=dict)
    plans: dict[str, Optional[DatasetPlan]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        opt: Mapping[str, Any],
        train: type[TrainSettings] = TrainSettings,
        val: type[ValSettings] = ValSettings,
        sections: Optional[Mapping[str, type]] = None,
    ) -> RunOptions:
        """Return the options of a run; sections that were checked already are not parsed again.

        Args:
            opt: BasicSR's option dictionary.
            train: Schema of section ``train``.
            val: Schema of section ``val``.
            sections: Schemas of the recipe's own sections, by key.

        Raises:
            OptionError: A section is wrong; the text starts with its YAML path.
        """
        return cls(
            opt,
            settings_of(opt.get("train"), train, "train") if opt.get("is_train") else None,
            settings_of(opt.get("val"), val, "val"),
            {key: settings_of(opt.get(key), schema, key) for key, schema in (sections or {}).items()},
            {
                phase: plan_of(options, f"datasets.{phase}")
                for phase, options in (opt.get("datasets") or {}).items()
                if isinstance(options, Mapping) and "type" in options
            },
        )

    @property
    def is_train(self) -> bool:
        """Whether this is a training."""
        return bool(self.opt.get("is_train"))

    def path(self, key: str, default: Any = None) -> Any:
        """Return an entry of section ``path``. BasicSR changes that section when a run is resumed."""
        return (self.opt.get("path") or {}).get(key, default)

    def network(self, name: str) -> dict[str, Any]:
        """Return a copy of the section ``network_<name>``.

        Raises:
            OptionError: It is missing, or has no ``type``.
        """
        key = f"network_{name}"
        options = self.opt.get(key)
        if not options:
            raise OptionError(f"{key}: {self.opt.get('model_type')} needs this network; give its `type` and arguments.")
        if not isinstance(options, Mapping) or not options.get("type"):
            raise OptionError(f"{key}.type: this option is required.")
        return dict(options)

    def label_names(self, count: int) -> list[str]:
        """Return what labels 0 to ``count - 1`` are called: by the training set, another set, or their number."""
        names: dict[int, str] = {}
        for phase in sorted(self.plans, key=lambda phase: phase != "train"):
            plan = self.plans[phase]
            names = {**(plan.label_names if plan is not None else {}), **names}
        return [names.get(label, str(label)) for label in range(count)]

    def labels(self) -> Iterator[tuple[str, int]]:
        """Yield ``(section, number of labels)`` of every data set whose samples are labelled."""
        for phase, plan in self.plans.items():
            if plan is not None:
                yield phase, plan.labels
