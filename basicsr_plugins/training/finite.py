"""Stop (or skip, up to a limit) when a loss is NaN or infinite, and say which one and on which files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from basicsr_plugins.errors import TrainingError
from basicsr_plugins.training.distributed import any_rank

__all__ = ["FiniteGuard"]


class FiniteGuard:
    """Judges the losses of one iteration before the weights move.

    Args:
        allowed: How many iterations may be skipped over the whole training (0 stops at the first).
    """

    def __init__(self, allowed: int = 0) -> None:
        self.allowed = allowed
        self.skipped = 0

    def accepts(
        self, losses: Mapping[str, Tensor], current_iter: int, batch: Mapping[str, Tensor], files: Sequence[str]
    ) -> bool:
        """Return whether the step may be taken; every rank gets the same answer.

        Raises:
            TrainingError: A loss is not finite and no skip is left. The weights have not been touched.
        """
        values = torch.stack([loss.detach().float().mean() for loss in losses.values()])
        good = bool(torch.isfinite(values).all())
        if not any_rank(not good, values.device):
            return True
        self.skipped += 1
        if self.skipped <= self.allowed:
            return False
        raise TrainingError(self._report(losses, values, current_iter, batch, files))

    def _report(
        self,
        losses: Mapping[str, Tensor],
        values: Tensor,
        current_iter: int,
        batch: Mapping[str, Tensor],
        files: Sequence[str],
    ) -> str:
        broken = [
            f"{name} = {value:g}" for name, value in zip(losses, values.tolist()) if not abs(value) < float("inf")
        ]
        inputs = [name for name, tensor in batch.items() if not bool(torch.isfinite(tensor).all())]
        where = ", ".join(broken) or "a loss on another rank is not finite"
        text = f"Iteration {current_iter}: {where}."
        if files:
            text += f" Files of the batch: {', '.join(files)}."
        if inputs:
            text += f" The data themselves hold NaN or infinite values: {', '.join(inputs)}."
        skips = f" {self.skipped - 1} such iterations had been skipped before." if self.skipped > 1 else ""
        return (
            f"{text}{skips} Training stops; the weights and the last checkpoint are untouched. Lower the learning "
            "rate, set train.grad_clip, use precision bf16 instead of fp16, or allow skips with train.skip_nonfinite."
        )
