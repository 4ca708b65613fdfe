"""Soft labels: a data set's integer labels as one degradation, or as several in equal shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor
from torch.nn import functional

from basicsr_plugins.adapters.modes import CLEAN
from basicsr_plugins.core.errors import DataError, OptionError, one_of

__all__ = ["MixtureLabels"]


class MixtureLabels:
    """Turns labels into shares of the estimator's classes (soft labels, 1/m each for m mixed degradations).

    Args:
        labels: What label 0, 1, ... means: a class, or a list of classes for a mixture. ``clean``, or an empty list, is
            an image without degradation; the estimator then has a class of that name.
        classes: The estimator's classes.
        where: YAML path of the labels, for messages.

    Raises:
        OptionError: A label names a class that the estimator does not have, or ``clean`` beside a degradation.

    Example:
        >>> MixtureLabels(["rain", ["rain", "haze"]], ["rain", "haze"]).table
        tensor([[1.0000, 0.0000],
                [0.5000, 0.5000]])
    """

    def __init__(
        self, labels: Sequence[Union[str, Sequence[str]]], classes: Sequence[str], where: str = "blend.labels"
    ) -> None:
        self.where = where
        self.meanings = [self.meaning(label, f"{where}[{index}]") for index, label in enumerate(labels)]
        self.table = torch.zeros(len(self.meanings), len(classes))
        for index, names in enumerate(self.meanings):
            for name in names:
                if name not in classes:
                    raise OptionError(
                        f"{where}[{index}]: {one_of(name, classes, 'degradation')} {self._advice(name)}".rstrip()
                    )
                self.table[index, list(classes).index(name)] = 1 / len(names)
        #: label -> class, for the labels that are one degradation
        self.single = {i: list(classes).index(names[0]) for i, names in enumerate(self.meanings) if len(names) == 1}

    @staticmethod
    def meaning(label: Union[str, Sequence[str]], where: str) -> list[str]:
        """Return the classes of a label.

        Raises:
            OptionError: ``clean`` stands beside a degradation.
        """
        names = [label] if isinstance(label, str) else list(label)
        if CLEAN in names and len(names) > 1:
            raise OptionError(
                f"{where}: {' & '.join(names)} is not a mixture: name the degradations alone, or {CLEAN!r} alone."
            )
        return names or [CLEAN]

    def _advice(self, name: str) -> str:
        if self.where != "blend.labels":
            return ""
        if name == CLEAN:
            return "A label of clean images needs such a class: network_e.classes: [<adapters>, clean]."
        return "These are the adapters."

    def __len__(self) -> int:
        return len(self.meanings)

    def name(self, label: int) -> str:
        """Return what a label is called ("blur & noise")."""
        return " & ".join(self.meanings[label])

    def to(self, device: torch.device) -> MixtureLabels:
        """Bring the table to where the labels will be, in place."""
        self.table = self.table.to(device)
        return self

    def shares(self, labels: Tensor) -> Tensor:
        """Return (n, K) shares for labels (n); ``check`` them before they leave the CPU.

        Raises:
            DataError: A label on the CPU has no meaning.
        """
        self.check(labels)
        return self.table[labels]

    def map_shares(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return (n, K, rows, columns): the share of each class in each cell of a grid laid over maps (n, h, w)."""
        self.check(maps)
        areas = functional.one_hot(maps, len(self)).permute(0, 3, 1, 2).float()
        areas = functional.adaptive_avg_pool2d(areas, grid)
        return torch.einsum("nlhw,lk->nkhw", areas, self.table)

    def check(self, labels: Tensor) -> None:
        """Look whether every label has a meaning; labels on a GPU are let through, looking at them would wait for it.

        Raises:
            DataError: One has none.
        """
        if not labels.is_cpu:
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self):
            raise DataError(
                f"the data set gives label {low if low < 0 else high}, but {self.where} names {len(self)}: "
                f"{', '.join(self.name(index) for index in range(len(self)))}."
            )
