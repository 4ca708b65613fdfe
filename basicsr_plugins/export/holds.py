"""What a recording of a network holds for: which sizes, and how many images at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Optional

from torch import Tensor

from basicsr_plugins.core.errors import CheckpointError
from basicsr_plugins.export.compare import ONE_IMAGE, SEVERAL_IMAGES, largest_difference
from basicsr_plugins.export.network import Plain
from basicsr_plugins.export.options import TOLERANCE
from basicsr_plugins.export.recording import RECORDED

__all__ = ["what_holds"]

Restore = Callable[[Tensor], Tensor]


def what_holds(plain: Plain, record: Callable[[int, bool], Restore]) -> tuple[int, bool, float]:
    """Return the padding with which a recording is right at any size, whether it is for several images, and its error.

    A network that computes with sizes in Python, rather than in tensors, is right at the recorded size alone. Where
    padding to a larger multiple than it asks for makes up for that, it is padded. One that computes the number of
    images in Python is recorded for one image.

    Args:
        plain: The network.
        record: Returns a recording in float32, for a multiple that it pads to and whether it is for several images.

    Raises:
        CheckpointError: It is right at the recorded size alone, or not even there. It says what was found first.
    """
    problem: Optional[CheckpointError] = None
    for multiple in sorted({math.lcm(plain.multiple, each) for each in (1, 8, 64)}):
        restore = record(multiple, True)
        try:
            there = _difference(restore, plain, [(1, *RECORDED)])
            elsewhere = _difference(restore, plain, ONE_IMAGE, there)
        except CheckpointError as error:
            problem = problem or error
            continue
        try:
            return multiple, True, max(there, elsewhere, _difference(restore, plain, SEVERAL_IMAGES, there))
        except CheckpointError:
            one = record(multiple, False)
            return multiple, False, _difference(one, plain, [(1, *RECORDED), *ONE_IMAGE], there)
    raise CheckpointError(
        f"{plain.label} cannot be recorded so that it is right at any size; its code may fix what depends on the size: "
        f"{problem}"
    )


def _difference(
    restore: Restore, plain: Plain, sizes: Iterable[tuple[int, int, int]], there: Optional[float] = None
) -> float:
    found = largest_difference(restore, plain.any_size(), plain.channels, sizes)
    # rounding is the same everywhere; anything beyond it is a mistake, however small the network's own part is
    allowed = TOLERANCE["fp32"] if there is None else max(10 * there, 1e-5)
    if not found <= allowed:
        raise CheckpointError(f"the exported file differs from the network by {found:.2g}, more than {allowed:.2g}.")
    return found
