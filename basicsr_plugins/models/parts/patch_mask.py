"""Random square patches of an image are masked, as in MaskDCPT (arXiv 2510.13282)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["hide_patches"]


def hide_patches(images: Tensor, ratio: float, patch: int) -> Tensor:
    """Return ``images`` with random patches set to zero, others for each image.

    The count is exact: ``round(ratio * patches)`` of each image's grid, whose last row and column may be cut off.

    Args:
        images: ``(n, c, h, w)``.
        ratio: Share of the patches that is masked, in [0, 1].
        patch: Side of a patch, pixels.
    """
    n, _, h, w = images.shape
    rows, columns = -(-h // patch), -(-w // patch)
    hidden = round(ratio * rows * columns)
    order = torch.rand(n, rows * columns, device=images.device).argsort(dim=1)
    kept = (order >= hidden).to(images.dtype).view(n, 1, rows, columns)
    kept = kept.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
    return images * kept[..., :h, :w]
