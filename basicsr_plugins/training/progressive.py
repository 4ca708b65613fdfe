"""Progressive patches: small crops and large batches first, larger crops and smaller batches later (Restormer)."""

from __future__ import annotations

import bisect
import random
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import check_value

__all__ = ["ProgressivePatches"]


class ProgressivePatches:
    """Cuts the loader's batch down to the stage's crop and batch size.

    The data set crops at the largest ``gt_size`` and the loader makes the largest batch; each stage then takes the
    first ``batch_sizes[i]`` samples and one random crop of ``gt_sizes[i]``, the same for all images of a batch.

    Args:
        settings: ``iters`` (length of each stage), ``gt_sizes``, ``batch_sizes``: lists of equal length.
        where: YAML path for messages.

    Raises:
        OptionError: A missing, unknown or ill-typed key, or lists of different lengths.

    .. code-block:: yaml

        train:
          progressive:
            iters: [92000, 64000, 48000]
            gt_sizes: [128, 160, 192]
            batch_sizes: [8, 5, 4]
    """

    keys = ("iters", "gt_sizes", "batch_sizes")

    def __init__(self, settings: Mapping[str, Any], where: str = "train.progressive") -> None:
        for key in settings:
            if key not in self.keys:
                raise OptionError(f"{where}.{key}: unknown option; allowed: {', '.join(self.keys)}.")
        lists = []
        for key in self.keys:
            if key not in settings:
                raise OptionError(f"{where}.{key}: this option is required.")
            lists.append(check_value(settings[key], list[int], f"{where}.{key}", _all_positive))
        self.iters, self.gt_sizes, self.batch_sizes = lists
        if len({len(values) for values in lists}) != 1:
            raise OptionError(f"{where}: iters, gt_sizes and batch_sizes must have the same length.")
        self.ends = [sum(self.iters[: i + 1]) for i in range(len(self.iters))]

    def check(self, dataset: Mapping[str, Any], scale: int = 1, where: str = "train.progressive") -> None:
        """Compare the stages with what the data set and its loader make.

        Args:
            dataset: ``datasets.train``: ``gt_size`` and ``batch_size_per_gpu`` must cover every stage.
            scale: Side of gt over side of lq.
            where: YAML path for messages.

        Raises:
            OptionError: A stage wants more than the loader makes, or a crop that is no multiple of the scale.
        """
        for key, wanted, made in (
            ("gt_sizes", max(self.gt_sizes), "gt_size"),
            ("batch_sizes", max(self.batch_sizes), "batch_size_per_gpu"),
        ):
            there = dataset.get(made)
            if there is not None and wanted > there:
                raise OptionError(
                    f"{where}.{key}: {wanted} is more than the {there} of datasets.train.{made}; the loader makes the "
                    f"largest stage and the others are cut from it. Set {made}: {wanted}."
                )
        for size in self.gt_sizes:
            if size % scale:
                raise OptionError(f"{where}.gt_sizes: {size} is no multiple of scale: {scale}.")

    def stage(self, current_iter: int) -> int:
        """Return the stage (from 0) of an iteration (from 1); the last stage lasts to the end."""
        return min(bisect.bisect_left(self.ends, current_iter), len(self.ends) - 1)

    def cut(self, batch: Mapping[str, Tensor], current_iter: int, scale: int = 1) -> dict[str, Tensor]:
        """Return the batch of the stage.

        Args:
            batch: ``lq`` (n, c, h, w), ``gt`` (n, c, h * scale, w * scale) and maps of gt's size; labels (n,) keep
                their place.
            current_iter: The iteration, counted from 1.
            scale: Side of gt over side of lq.
        """
        stage = self.stage(current_iter)
        size = self.gt_sizes[stage] // scale
        height, width = batch["lq"].shape[-2:]
        top, left = random.randint(0, max(0, height - size)), random.randint(0, max(0, width - size))
        cut = {}
        for name, tensor in batch.items():
            tensor = tensor[: self.batch_sizes[stage]]
            if tensor.dim() >= 3:  # an image or a map
                factor = tensor.shape[-1] // width
                rows = slice(top * factor, (top + size) * factor)
                columns = slice(left * factor, (left + size) * factor)
                tensor = tensor[..., rows, columns]
            cut[name] = tensor
        return cut


def _all_positive(values: list[int]) -> str | None:
    return None if values and min(values) > 0 else "must be a list of whole numbers above 0"
