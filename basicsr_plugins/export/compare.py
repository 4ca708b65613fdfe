"""Whether an exported file gives what the network gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from basicsr_plugins.core.errors import CheckpointError

__all__ = ["ONE_IMAGE", "SEVERAL_IMAGES", "largest_difference"]

Restore = Callable[[Tensor], Tensor]
#: (n, h, w): even sides, and sides that are multiples of nothing.
ONE_IMAGE = ((1, 64, 64), (1, 45, 70))
SEVERAL_IMAGES = ((2, 45, 70),)


@torch.no_grad()
def largest_difference(
    exported: Restore, network: Restore, channels: int, sizes: Iterable[tuple[int, int, int]] = ONE_IMAGE
) -> float:
    """Return the largest difference, as a share of the larger one of 1 and the network's largest output.

    Args:
        exported: Runs the exported file on (n, c, h, w).
        network: What it has to agree with.
        channels: Of the images.
        sizes: (n, h, w) of the images that are tried.

    Raises:
        CheckpointError: The file does not run at one of these sizes, or gives another size, or what is not finite.
    """
    largest = 0.0
    for n, h, w in sizes:
        images = _images(n, channels, h, w)
        expected = network(images)
        try:
            got = exported(images)
        except Exception as error:  # of whatever runs it
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise CheckpointError(f"the exported file does not run on {n} x {h} x {w} pixels: {reason}") from error
        if got.shape != expected.shape:
            raise CheckpointError(
                f"the exported file gives {tuple(got.shape)} for {n} x {h} x {w} pixels, not {tuple(expected.shape)}."
            )
        if not bool(torch.isfinite(got).all()):
            raise CheckpointError(f"the exported file's output is not finite for {n} x {h} x {w} pixels.")
        difference = (got.float() - expected.float()).abs().max() / expected.abs().max().clamp_min(1)
        largest = max(largest, float(difference))
    return largest


def _images(n: int, channels: int, h: int, w: int) -> Tensor:
    """Return images in [0, 1] that are smooth here and noisy there, the same for the same size."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, channels, 4, 4, generator=generator)
    smooth = interpolate(coarse, (h, w), mode="bilinear", align_corners=False)
    noise = torch.rand(n, channels, h, w, generator=generator) - 0.5
    return (smooth + 0.3 * noise * smooth.roll(1, -1)).clamp_(0, 1)
