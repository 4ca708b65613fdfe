"""Classification accuracy as a metric of an option file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import numpy as np

from basicsr_plugins.core.registration import provides

__all__ = ["calculate_accuracy"]


@provides("metric")
def calculate_accuracy(logits: Union[np.ndarray, Sequence[float]], label: int, top_k: int = 1) -> float:
    """Return 1.0 if the label is among the ``top_k`` largest logits of one image, else 0.0; its mean is the accuracy.

    Ties count against the prediction. Handed ``logits`` and ``label`` by models that classify.

    Args:
        logits: Scores ``(classes,)``.
        label: True class.
        top_k: How many guesses.
    """
    scores = np.asarray(logits, dtype=np.float64).reshape(-1)
    better = int((scores >= scores[label]).sum()) - 1
    return float(better < top_k)


calculate_accuracy.higher_is_better = True  # type: ignore[attr-defined]
