"""Uncertainty from the spread of several negatives: errors where earlier states of the network disagree weigh more."""

from __future__ import annotations

import torch
from torch import Tensor

from basicsr_plugins.core.errors import OptionError

__all__ = ["negative_spread", "uncertainty_term"]


def negative_spread(negatives: Tensor) -> Tensor:
    """Return the standard deviation over the negatives, per value: ``(n, 3, h, w)``, detached.

    Args:
        negatives: ``(k, n, 3, h, w)``.

    Raises:
        OptionError: There are fewer than two.
    """
    if len(negatives) < 2:
        raise OptionError(
            f"uncertainty_weight: a spread needs at least 2 negatives in each step, got {len(negatives)}. "
            "Raise negatives_per_step or give more steps."
        )
    return negatives.detach().float().std(dim=0, correction=0)


def uncertainty_term(output: Tensor, target: Tensor, negatives: Tensor) -> Tensor:
    """Return ``mean(|output - target| * u / mean(u))`` with u the spread of the negatives.

    Added to an L1 reconstruction loss it makes ``mean(|output - target| * (1 + u / mean(u)))``. The form is ours: the
    follow-up to "Learning from History" names an uncertainty map from the negatives' statistics, its equation was not
    to be found.

    Args:
        output: ``(n, 3, h, w)``, the only one that gets a gradient.
        target: Of that shape.
        negatives: ``(k, n, 3, h, w)``, k of 2 or more.

    Raises:
        OptionError: There are fewer than two negatives.
    """
    spread = negative_spread(negatives)
    # where all negatives agree everywhere there is nothing to weigh
    weight = spread / spread.mean().clamp_min(torch.finfo(spread.dtype).tiny)
    return ((output - target.detach()).abs() * weight).mean()
