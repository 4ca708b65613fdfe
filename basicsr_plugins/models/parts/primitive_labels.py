"""Multi-label targets: mixtures as sets of primitive degradations instead of one class per combination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor
from torch.nn import functional as F

from basicsr_plugins.adapters.modes import CLEAN
from basicsr_plugins.models.parts.mixture_labels import MixtureLabels

__all__ = ["PrimitiveLabels"]


class PrimitiveLabels(MixtureLabels):
    """Turns labels into multi-hot targets over primitives, and logits back into the most probable label.

    Args:
        labels: What label 0, 1, ... means: a primitive, a list of primitives, or an empty list for a clean image.
        where: YAML path of the labels, for messages.

    Example:
        >>> import torch
        >>> PrimitiveLabels(["low", "rain", ["low", "rain"]]).targets(torch.tensor([0, 2]))
        tensor([[1., 0.],
                [1., 1.]])
    """

    def __init__(self, labels: Sequence[Union[str, Sequence[str]]], where: str = "train.labels") -> None:
        listed = [[label] if isinstance(label, str) else list(label) for label in labels]
        #: The primitives in the order in which they are first named: the classifier's outputs.
        self.primitives = list(dict.fromkeys(name for names in listed for name in names))
        super().__init__(labels, self.primitives, where)
        self.present = (self.table > 0).float()

    def to(self, device: torch.device) -> PrimitiveLabels:
        """Bring the tables to where the labels will be, in place."""
        self.present = self.present.to(device)
        super().to(device)
        return self

    def name(self, label: int) -> str:
        """Return what a label is called ("low & rain", "clean")."""
        return super().name(label) or CLEAN

    @staticmethod
    def meaning(label: Union[str, Sequence[str]], where: str) -> list[str]:
        """Return the primitives of a label; none for a clean image."""
        return MixtureLabels.meaning(label, where) if label else []

    def targets(self, labels: Tensor) -> Tensor:
        """Return (n, primitives) of 0 and 1 for labels (n).

        Raises:
            DataError: A label on the CPU has no meaning.
        """
        self.check(labels)
        return self.present[labels]

    def likeliest(self, logits: Tensor) -> Tensor:
        """Return the most probable label (n) of logits (n, primitives), the primitives taken as independent."""
        signs = self.present * 2 - 1
        return F.logsigmoid(logits[:, None] * signs).sum(dim=-1).argmax(dim=1)
