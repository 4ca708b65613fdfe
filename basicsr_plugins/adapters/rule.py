"""What becomes of an estimator's answer: the weights of the adapters, and how much of an image stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from torch import Tensor

from basicsr_plugins.adapters.modes import blend_weights, kept_share
from basicsr_plugins.core.options import fraction, option, positive

__all__ = ["BlendRule"]


@dataclass
class BlendRule:
    """The options of section ``blend`` that go by the estimator's answer."""

    top_k: Optional[int] = option(None, "keep only the largest weights of each image", check=positive)
    threshold: float = option(0.0, "images whose largest probability is below this use the base alone", check=fraction)
    keep_clean: bool = option(
        True, "what the share of a class `clean` has above one half, doubled, is how much of the image stays as it is "
        "(beyond the paper; false restores it with the base)"
    )  # fmt: skip

    def blend(
        self,
        mode: str,
        names: Sequence[str],
        probabilities: Optional[Tensor] = None,
        classes: Optional[Sequence[str]] = None,
        labels: Optional[Tensor] = None,
    ) -> tuple[Optional[Tensor], Optional[Tensor]]:
        """Return what ``blend_weights`` and ``kept_share`` say; the second is None where everything is restored.

        Example:
            >>> import torch
            >>> BlendRule().blend("soft", ["rain"], torch.tensor([[0.25, 0.75]]), ["rain", "clean"])
            (tensor([[0.2500]]), tensor([0.5000]))
        """
        limits: dict[str, Any] = {"top_k": self.top_k, "threshold": self.threshold}
        weights = blend_weights(mode, names, probabilities, classes, labels, **limits)
        if not self.keep_clean:
            return weights, None
        return weights, kept_share(mode, probabilities, classes or (), labels, **limits)
