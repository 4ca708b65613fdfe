"""The guards of SPN: start, warm-up of the weight, detection of a collapse."""

from __future__ import annotations

import logging
import math
from typing import Any, Optional

import torch
import torch.distributed as dist
from torch import Tensor

from basicsr_plugins.core.errors import OptionError, TrainingError, one_of

__all__ = ["SPNGuard", "ramp"]

#: Errors below one level of 8-bit images are noise, however much they rise.
GREY_LEVEL = 1 / 255
ACTIONS = ("lower", "stop", "raise", "ignore")
_logger = logging.getLogger("basicsr")


def ramp(iteration: int, start: int, length: int) -> float:
    """Return 0 before ``start``, then a straight line that reaches 1 after ``length`` iterations."""
    if iteration < start:
        return 0.0
    return 1.0 if length == 0 else min(1.0, (iteration - start + 1) / length)


class SPNGuard:
    """Start, warm-up and collapse detection for a loss that is unbounded below.

    Two signs of a collapse are watched, both as means over about ``window`` iterations and over all ranks: the
    weighted distance to the negatives exceeds ``max_ratio`` times the mean absolute error, or that error exceeds
    ``max_rise`` times the lowest it has been. The mean absolute error is taken whatever the reconstruction loss is, so
    that the guard means the same for L1, PSNR and SSIM losses. None of this is in the paper (Tables 8 and 9 report the
    collapses); all defaults are ours.

    Args:
        start_iter: Nothing is added before this iteration; None: before the largest step of the negatives has passed.
        warmup_iter: Iterations from the start to the full weight, in a straight line.
        on_collapse: ``lower`` the weight tenfold, ``stop`` adding the loss, ``raise`` an error, or ``ignore``.
        max_ratio: See above.
        max_rise: See above.
        window: Iterations a mean stretches over.
        check_every: Iterations between checks; each reads three numbers back from the device.

    Raises:
        OptionError: A number out of its range, an unknown action.
    """

    def __init__(
        self,
        start_iter: Optional[int] = None,
        warmup_iter: int = 5000,
        on_collapse: str = "lower",
        max_ratio: float = 1.0,
        max_rise: float = 2.0,
        window: int = 50,
        check_every: int = 10,
    ) -> None:
        if on_collapse not in ACTIONS:
            raise OptionError(f"on_collapse: {one_of(on_collapse, ACTIONS, 'action')}")
        for name, value, least in (
            ("start_iter", start_iter or 0, 0),
            ("warmup_iter", warmup_iter, 0),
            ("window", window, 1),
            ("check_every", check_every, 1),
        ):
            if value < least:
                raise OptionError(f"{name}: must be {least} or more, got {value}.")
        if max_ratio <= 0 or max_rise <= 1:
            raise OptionError(
                f"max_ratio must be above 0 and max_rise above 1, got {max_ratio} and {max_rise}. "
                "To watch nothing: on_collapse: ignore."
            )
        self.start_iter = start_iter
        self.warmup_iter = warmup_iter
        self.on_collapse = on_collapse
        self.max_ratio = max_ratio
        self.max_rise = max_rise
        self.window = window
        self.check_every = check_every
        self.factor = 1.0  # what collapses have left of the weight
        self.observed = 0
        self.since_reset = 0
        self._means: Optional[Tensor] = None  # error, weighted distance, lowest error

    def scale(self, iteration: int, largest_step: int = 0) -> float:
        """Return what the loss is multiplied by at an iteration (counted from 0)."""
        start = largest_step if self.start_iter is None else self.start_iter
        return ramp(iteration, start, self.warmup_iter) * self.factor

    @torch.no_grad()
    def observe(self, output: Tensor, target: Tensor, weighted_distance: Optional[Tensor] = None) -> Optional[str]:
        """Take one iteration in; returns the sentence about a collapse where one was found, after acting on it.

        Args:
            output: ``(n, c, h, w)``.
            target: Of that shape.
            weighted_distance: What is subtracted from the loss, a scalar; None while nothing is.

        Raises:
            TrainingError: A collapse, with ``on_collapse: raise``.
        """
        return self.take(self.measure(output, target, weighted_distance))

    @torch.no_grad()
    def measure(self, output: Tensor, target: Tensor, weighted_distance: Optional[Tensor] = None) -> Optional[Tensor]:
        """Return what ``take`` wants to know of an iteration; the arguments are those of ``observe``."""
        if self.on_collapse == "ignore":
            return None
        error = (output - target).abs().mean(dtype=torch.float32)
        pushed = torch.zeros_like(error) if weighted_distance is None else weighted_distance.to(error).detach()
        return torch.stack([error, pushed])

    @torch.no_grad()
    def take(self, now: Optional[Tensor]) -> Optional[str]:
        """Take in what ``measure`` returned, once the iteration counts; see ``observe``."""
        if now is None:
            return None
        if self._means is None:
            self._means = torch.cat([now, now.new_full((1,), math.inf)])
        means = self._means.to(now.device)
        # a plain mean at first, a running one later
        share = 1.0 / min(self.since_reset + 1, self.window)
        means[:2].lerp_(now, share)
        self.observed += 1
        self.since_reset += 1
        if self.since_reset >= self.window:  # a mean over a few batches may be low by luck
            means[2] = torch.minimum(means[2], means[0])
        self._means = means
        if self.factor > 0 and self.observed % self.check_every == 0 and self.since_reset >= self.window:
            return self._check(_mean_over_ranks(means))
        return None

    def _check(self, means: list[float]) -> Optional[str]:
        error, pushed, lowest = means
        ratio = pushed / max(error, 1e-12)
        if not (math.isfinite(error) and math.isfinite(pushed)):
            sign = f"a value that is not finite (error {error}, weighted distance {pushed})"
        elif ratio > self.max_ratio:
            sign = f"its weighted distance is {ratio:.3g} times the mean absolute error {error:.4g} (max_ratio)"
        elif pushed > 0 and error > self.max_rise * max(lowest, GREY_LEVEL):
            sign = f"the mean absolute error rose from {lowest:.4g} to {error:.4g} (max_rise)"
        else:
            return None
        return self._act(f"SPN collapses after {self.observed} iterations: {sign}.")

    def _act(self, sentence: str) -> str:
        if self.on_collapse == "raise":
            raise TrainingError(f"{sentence} Lower loss_weight, raise decay or warmup_iter, or set on_collapse.")
        self.factor = 0.0 if self.on_collapse == "stop" else self.factor * 0.1
        done = "It is switched off." if self.on_collapse == "stop" else f"Its weight is now {self.factor:.3g} of yours."
        self._means = None
        self.since_reset = 0
        _logger.warning("%s %s", sentence, done)
        return f"{sentence} {done}"

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs, as plain numbers."""
        means = None if self._means is None else self._means.tolist()
        return {"factor": self.factor, "observed": self.observed, "since_reset": self.since_reset, "means": means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.factor = float(state["factor"])
        self.observed = int(state["observed"])
        self.since_reset = int(state["since_reset"])
        self._means = None if state["means"] is None else torch.tensor(state["means"], dtype=torch.float32)


def _mean_over_ranks(values: Tensor) -> list[float]:
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values.tolist()
