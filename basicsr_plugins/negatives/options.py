"""The arguments of ``NegativeModels``: their checks, and the step and decay of each negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

from basicsr_plugins.core.errors import OptionError, one_of
from basicsr_plugins.core.precision import autocast_dtype

__all__ = ["MODES", "STEPS", "THRESHOLD", "check_negatives", "paths"]

MODES = ("history", "random", "pretrained", "adaptive")
SELECTIONS = ("cycle", "random")
#: The paper's setting ("used together"); the released configuration has 100, 200, 500, 1000.
STEPS = (100, 500, 1000, 2000)
#: w of equation 1: best in Table 9. The adaptive variant of the released code replaces nearly all.
DECAY = 0.1
ADAPTIVE_DECAY = 0.001
#: neg_t of the adaptive variant.
THRESHOLD = 0.022


def check_negatives(
    *,
    steps: Sequence[int],
    decay: Union[float, Sequence[float], None],
    start: float,
    mode: str,
    count: Optional[int],
    pretrained: Union[str, Sequence[str], None],
    threshold: float,
    negatives_per_step: Optional[int],
    selection: str,
    precision: Optional[str],
    **_: Any,
) -> tuple[list[int], list[float]]:
    """Check the arguments of ``NegativeModels`` and return the step and the decay of each negative.

    The defaults stand in its constructor alone; arguments whose type says everything (``seed``) pass through.

    Raises:
        OptionError: The first thing that is wrong.
    """
    for name, chosen, allowed in (("mode", mode, MODES), ("selection", selection, SELECTIONS)):
        if chosen not in allowed:
            raise OptionError(f"{name}: {one_of(chosen, allowed, name)}")
    if precision is not None:
        autocast_dtype(precision, "precision")
    intervals = _intervals(mode, steps, count, paths(pretrained))
    if decay is None:
        decay = ADAPTIVE_DECAY if mode == "adaptive" else DECAY
    decays: list[Any] = list(decay) if isinstance(decay, (list, tuple)) else [decay] * len(intervals)
    if len(decays) != len(intervals):
        raise OptionError(f"decay: one value for all or one for each of {len(intervals)} negatives, got {decays}.")
    for name, value in [("decay", value) for value in decays] + [("start", start)]:
        if not 0 <= value <= 1:
            raise OptionError(f"{name}: must lie between 0 and 1, got {value!r}.")
    if start and mode != "history":
        raise OptionError(f"start: belongs to mode 'history', got {start!r} with mode {mode!r}.")
    if threshold < 0:
        raise OptionError(f"threshold: must be 0 or more, got {threshold!r}.")
    if negatives_per_step is not None and not 1 <= negatives_per_step <= len(intervals):
        raise OptionError(
            f"negatives_per_step: must lie between 1 and the number of negatives, {len(intervals)}, "
            f"got {negatives_per_step}."
        )
    return intervals, [float(value) for value in decays]


def _intervals(mode: str, steps: Sequence[int], count: Optional[int], files: list[str]) -> list[int]:
    """Return one number of iterations per negative; 1 where a negative has no schedule."""
    if mode == "pretrained" and not files:
        raise OptionError("pretrained: mode 'pretrained' needs the path of at least one network (N = 0).")
    if mode != "pretrained" and files:
        raise OptionError(f"pretrained: belongs to mode 'pretrained', got {files} with mode {mode!r}.")
    defaults = {"history": len(steps), "random": 1, "pretrained": len(files), "adaptive": 4}
    number = count if count is not None and mode in ("random", "adaptive") else defaults[mode]
    if count is not None and count != number:
        raise OptionError(f"count: mode {mode!r} has {number} negatives by its other options, got {count}.")
    if number < 1:
        raise OptionError(f"{'steps' if mode == 'history' else 'count'}: at least one negative is needed (N = 0).")
    intervals = list(steps) if mode == "history" else [1] * number
    for interval in intervals:
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise OptionError(f"steps: each must be a whole number of iterations, 1 or more, got {interval!r}.")
    return intervals


def paths(pretrained: Union[str, Sequence[str], None]) -> list[str]:
    """Return one path or several as a list."""
    return [pretrained] if isinstance(pretrained, str) else list(pretrained or [])
