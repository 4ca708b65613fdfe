"""Stop (or skip, up to a limit) when a loss is NaN or infinite, and say which one and on which files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Union

import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import TrainingError

__all__ = ["FiniteGuard"]

#: Steps; before, a few broken ones are no majority.
JUDGED_FROM = 10
#: So many skipped steps without one between them are no accident.
IN_A_ROW = 50
_ADVICE = "Lower the learning rate, set train.grad_clip, or use precision bf16 instead of fp16"


class FiniteGuard:
    """Judges the losses of one iteration before the weights move.

    Args:
        allowed: How many iterations may be skipped over the whole training (0 stops at the first).
            A training that skips more than half of its steps has failed and stops anyway: from step 10 on, and at
            its end; so does one that skips 50 in a row.
    """

    def __init__(self, allowed: int = 0) -> None:
        self.allowed = allowed
        self.skipped = 0
        #: Steps that were left out, altogether and since the last one that was taken.
        self.lost = self.in_a_row = 0

    def accepts(
        self,
        losses: Mapping[str, Union[float, Tensor]],
        current_iter: int,
        batch: Mapping[str, Tensor],
        files: Sequence[str],
        broken_elsewhere: bool = False,
    ) -> bool:
        """Return whether the step may be taken.

        Args:
            losses: The losses of all phases by name, read from the device already.
            current_iter: The iteration, for the message.
            batch: What it was computed from.
            files: Where that came from.
            broken_elsewhere: A loss of another rank is not finite: no rank takes the step then.

        Raises:
            TrainingError: A loss is not finite and no skip is left. The weights have not been touched.
        """
        broken = [f"{name} = {value:g}" for name, value in losses.items() if not math.isfinite(value)]
        if not broken and not broken_elsewhere:
            return True
        if not self._may_skip():
            raise TrainingError(self._report(broken, current_iter, batch, files))
        return False

    def refuse_gradients(self, norm: float, current_iter: int, files: Sequence[str]) -> None:
        """Count a step whose losses were finite and whose gradients are not.

        Raises:
            TrainingError: No skip is left. The weights have not been touched.
        """
        if not self._may_skip():
            where = f"the losses are finite, the gradients' norm is {norm:g}"
            raise TrainingError(self._advise(f"Iteration {current_iter}: {where}.{_named(files)}"))

    def remember_buffers(self, networks: Iterable[nn.Module]) -> list[tuple[Tensor, Tensor]]:
        """Return copies of the floating-point buffers, where iterations may be skipped.

        BatchNorm has taken a broken batch into its statistics before any loss tells that it is broken.
        """
        if self.skipped >= self.allowed:
            return []
        return [(b, b.detach().clone()) for network in networks for b in network.buffers() if b.is_floating_point()]

    @torch.no_grad()
    def restore_buffers(self, buffers: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Undo what a skipped iteration did to the buffers."""
        for buffer, value in buffers:
            buffer.copy_(value)

    def _may_skip(self) -> bool:
        self.skipped += 1
        return self.skipped <= self.allowed

    def close_window(self, stepped: bool, windows: int) -> None:
        """Count a step that was taken or left out; ``windows`` is how many there might have been so far.

        Raises:
            TrainingError: The training has failed: it leaves most of its steps out.
        """
        if stepped:
            self.in_a_row = 0
            return
        self.lost += 1
        self.in_a_row += 1
        if windows >= JUDGED_FROM:
            self.refuse_most_lost(windows)
        if self.in_a_row >= IN_A_ROW:
            raise TrainingError(f"The last {self.in_a_row} steps were skipped: losses were not finite. {_ADVICE}.")

    def refuse_most_lost(self, windows: int) -> None:
        """Refuse to call a training of so many steps a success that skipped most of them.

        Raises:
            TrainingError: More than half were skipped.
        """
        if 2 * self.lost > windows:
            raise TrainingError(
                f"{self.lost} of {windows} steps were skipped, the most: losses were not finite. {_ADVICE}."
            )

    def _report(
        self, broken: Sequence[str], current_iter: int, batch: Mapping[str, Tensor], files: Sequence[str]
    ) -> str:
        inputs = [name for name, tensor in batch.items() if not bool(torch.isfinite(tensor).all())]
        where = ", ".join(broken) or "a loss on another rank is not finite"
        text = f"Iteration {current_iter}: {where}."
        text += _named(files)
        if inputs:
            text += f" The data themselves hold NaN or infinite values: {', '.join(inputs)}."
        return self._advise(text)

    def _advise(self, text: str) -> str:
        skips = f" {self.skipped - 1} such iterations had been skipped before." if self.skipped > 1 else ""
        return (
            f"{text}{skips} Training stops; the weights and the last checkpoint are untouched. {_ADVICE}, or allow "
            "skips with train.skip_nonfinite."
        )


def _named(files: Sequence[str]) -> str:
    return f" Files of the batch: {', '.join(files)}." if files else ""
