"""PCL's positives (sharpened clean images) and negatives (slightly blurred clean images, the up-sampled input)."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["blurred", "pcl_negatives", "pcl_positives", "sharpened"]

KERNELS = (3, 5, 7, 9, 11)


def sharpened(images: Tensor, factors: Tensor) -> Tensor:
    """Return each image moved away from its smoothed self by its factor: 0 smooths, 1 changes nothing, 2 sharpens.

    Args:
        images: ``(n, 3, h, w)`` in [0, 1].
        factors: ``(n,)``.
    """
    kernel = images.new_full((images.shape[1], 1, 3, 3), 1 / 13)  # PIL's SMOOTH filter
    kernel[..., 1, 1] = 5 / 13
    smooth = images.clone()  # the border keeps its values, as in PIL
    smooth[..., 1:-1, 1:-1] = F.conv2d(images, kernel, groups=images.shape[1])
    return torch.lerp(smooth, images, factors.to(images).view(-1, 1, 1, 1)).clamp(0, 1)


def blurred(images: Tensor, generator: Optional[torch.Generator] = None) -> Tensor:
    """Return each image under a Gaussian blur of its own: odd sizes 3 to 11 and sigma in U(0.1, 2) for each axis.

    Args:
        images: ``(n, 3, h, w)``.
        generator: A CPU generator; torch's own if left out.
    """
    return _convolved(images, _kernels(len(images), generator).to(images))


def _kernels(count: int, generator: Optional[torch.Generator]) -> Tensor:
    side = KERNELS[-1]
    kernels = torch.empty(count, side, side, dtype=torch.float64)
    for kernel in kernels:
        size_y, size_x = (KERNELS[i] for i in torch.randint(len(KERNELS), (2,), generator=generator).tolist())
        sigma_y, sigma_x = (0.1 + 1.9 * torch.rand(2, generator=generator)).tolist()
        kernel.copy_(_gaussian(size_y, sigma_y).unsqueeze(1) * _gaussian(size_x, sigma_x))
    return kernels


def _convolved(images: Tensor, kernels: Tensor) -> Tensor:
    # one grouped convolution for the batch: each channel of each image is a group
    count, channels, height, width = images.shape
    weight = kernels.repeat_interleave(channels, dim=0).unsqueeze(1)
    radius = KERNELS[-1] // 2
    mode = "reflect" if min(height, width) > radius else "replicate"
    padded = F.pad(images, [radius] * 4, mode=mode).reshape(1, count * channels, height + 2 * radius, -1)
    return F.conv2d(padded, weight, groups=count * channels).view_as(images)


def pcl_positives(target: Tensor, count: int = 3, generator: Optional[torch.Generator] = None) -> Tensor:
    """Return the clean images and ``count`` sharpened ones, factor 0.5 + U(0, 1) * 2.5: ``(1 + count, n, 3, h, w)``.

    Args:
        target: ``(n, 3, h, w)`` in [0, 1].
        count: How many sharpened versions; published: 3.
        generator: A CPU generator; torch's own if left out.
    """
    # all draws go to the device in one copy
    factors = (0.5 + 2.5 * torch.rand(count, len(target), generator=generator)).to(target)
    return torch.stack([target, *(sharpened(target, of_images) for of_images in factors)]).detach()


def pcl_negatives(target: Tensor, lq: Tensor, count: int = 3, generator: Optional[torch.Generator] = None) -> Tensor:
    """Return the input, up-sampled where smaller, and ``count`` blurred clean images: ``(1 + count, n, 3, h, w)``.

    Args:
        target: ``(n, 3, h, w)`` in [0, 1].
        lq: ``(n, 3, h', w')`` in [0, 1].
        count: How many blurred versions; published: 3.
        generator: A CPU generator; torch's own if left out.
    """
    if lq.shape[-2:] != target.shape[-2:]:
        lq = F.interpolate(lq, size=target.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)
    kernels = _kernels(count * len(target), generator).to(target).unflatten(0, (count, len(target)))
    return torch.stack([lq, *(_convolved(target, of_images) for of_images in kernels)]).detach()


def _gaussian(size: int, sigma: float) -> Tensor:
    # every kernel is laid into the largest one, so that a batch is one convolution
    largest = KERNELS[-1]
    position = torch.arange(largest, dtype=torch.float64) - largest // 2
    values = torch.exp(-(position**2) / (2 * sigma**2)) * (position.abs() <= size // 2)
    return values / values.sum()
