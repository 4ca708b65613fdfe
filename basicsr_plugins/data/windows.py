"""Where the sub-images of an image lie: BasicSR's rule, for an image or for a pair of two sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from basicsr_plugins.core.errors import OptionError

__all__ = ["Cutting", "starts", "windows"]

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Cutting:
    """How images are cut into sub-images.

    Args:
        size: Side of a sub-image in pixels of the clean image.
        step: From one sub-image to the next.
        threshold: A rest at the right or lower edge that is larger gets a window of its own, at the edge.
        scale: How many times larger the clean image is than the degraded one; ``size`` and ``step`` are multiples.
        small: An image that is smaller than a window in one direction is kept whole in that direction (``keep``), left
            out (``skip``), or ends the run before anything is written (``refuse``).
        compression: Of the PNG files, 0 (fast) to 9 (small).

    Raises:
        OptionError: A number out of its range.
    """

    size: int = 480
    step: int = 240
    threshold: int = 0
    scale: int = 1
    small: Literal["keep", "skip", "refuse"] = "keep"
    compression: int = 3

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("step", 1), ("scale", 1), ("threshold", 0)):
            if getattr(self, name) < least:
                raise OptionError(f"--{name}: must be {least} or more, got {getattr(self, name)}.")
        for name in ("size", "step"):
            if getattr(self, name) % self.scale:
                raise OptionError(
                    f"--{name}: must be a multiple of --scale, so that both images of a pair are cut at the same "
                    f"place; got {getattr(self, name)} with --scale {self.scale}."
                )
        if not 0 <= self.compression <= 9:
            raise OptionError(f"--compression: must lie between 0 and 9, got {self.compression}.")


def starts(length: int, size: int, step: int, threshold: int = 0) -> list[int]:
    """Return where the windows begin along one side.

    Args:
        length: Of the side.
        size: Of a window; a side that is not longer has one window.
        step: From one to the next.
        threshold: A rest behind the last window that is larger gets one more, which ends with the side.

    Example:
        >>> starts(1020, 480, 240), starts(1020, 480, 240, threshold=60), starts(100, 480, 240)
        ([0, 240, 480, 540], [0, 240, 480], [0])
    """
    found = list(range(0, length - size + 1, step)) or [0]
    if length - (found[-1] + size) > threshold:
        found.append(length - size)
    return found


def windows(height: int, width: int, cutting: Cutting) -> list[Window]:
    """Return (top, left, height, width) of each sub-image of a degraded image, row by row.

    With ``scale`` 1 that is the clean image too; else each number times ``scale`` is the window of the clean one.

    Example:
        >>> windows(4, 6, Cutting(size=4, step=4))
        [(0, 0, 4, 4), (0, 2, 4, 4)]
    """
    size, step = cutting.size // cutting.scale, cutting.step // cutting.scale
    threshold = cutting.threshold // cutting.scale
    return [
        (top, left, min(size, height), min(size, width))
        for top in starts(height, size, step, threshold)
        for left in starts(width, size, step, threshold)
    ]
