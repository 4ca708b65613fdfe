"""Validation over one data set: sharded over ranks, any image, metrics equal to one rank's, nothing overwritten."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from os import path as osp
from typing import Any, Optional

from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from basicsr_plugins import stock
from basicsr_plugins.metrics.direction import lower_is_better
from basicsr_plugins.training import distributed

__all__ = [
    "average_metrics",
    "format_table",
    "images_of",
    "infinite_images",
    "measure_image",
    "metric_is_lower_better",
    "metric_notes",
    "validate",
]


def validate(model: Any, dataloader: DataLoader, current_iter: Any, save_img: bool) -> list[dict[str, Any]]:
    """Restore every image of a data set and return one record per image, in the data set's order, on every rank.

    Args:
        model: A ``RestorationModel``.
        dataloader: BasicSR's validation loader (one image a batch).
        current_iter: The iteration, or the test's name.
        save_img: Save the restored images where stock saves them.

    Returns:
        Records with ``index``, ``name``, ``metrics`` (name to float) and whatever the recipe's ``evaluate`` adds.
    """
    rank, world = distributed.rank(), distributed.world_size()
    dataset: Any = dataloader.dataset
    indices = list(range(rank, len(dataset), world))
    loader = DataLoader(Subset(dataset, indices), batch_size=1, num_workers=0) if world > 1 else dataloader
    pictures = model.pictures
    pictures.begin(dataset.opt["name"], current_iter)
    records = []
    steps: Any = zip(indices, loader)
    if model.val_settings.pbar and rank == 0:
        steps = tqdm(steps, total=len(indices), unit="image", desc=dataset.opt["name"])
    for index, data in steps:
        model.feed_data(data)
        model.test()
        name = _name(data)
        pictures.start_image(name, index)
        record = {"index": index, "name": name, "metrics": {}, **model.evaluate()}
        images = images_of(model.output, model.lq, model.batch.get("gt"))
        if "rain_mask" in data:
            images["rain_mask"] = data["rain_mask"][0, 0].cpu().numpy()
        if save_img:
            pictures.save(images["img"])
        record["pictures"] = pictures.written
        for name, options in (model.val_settings.metrics or {}).items():
            value = measure_image(images, options)
            if value is not None:
                record["metrics"][name] = value
        records.append(record)
    records = sorted(distributed.gather_objects(records), key=lambda record: record["index"])
    pictures.settle(records, rank, world)
    return records


def average_metrics(records: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean of every metric over the images that have it, summed in the data set's order.

    The PSNR of a perfect image is infinite, and so would be the mean, which tells nothing any more: such images are
    left out as long as there are others. ``infinite_images`` counts them.
    """
    names = dict.fromkeys(name for record in records for name in record["metrics"])
    means = {}
    for name in names:
        values = [record["metrics"][name] for record in records if name in record["metrics"]]
        values = [value for value in values if math.isfinite(value)] or values
        means[name] = sum(values) / len(values)
    return means


def infinite_images(records: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many images have an infinite value, of each metric of which some have."""
    found: dict[str, int] = {}
    for record in records:
        for name, value in record["metrics"].items():
            if value == math.inf:
                found[name] = found.get(name, 0) + 1
    return found


def metric_notes(records: list[dict[str, Any]], metrics: Iterable[str]) -> list[str]:
    """Return one sentence for each metric that has no finite value of every image."""
    notes = []
    infinite = infinite_images(records)
    for name in metrics:
        missing = [record["name"] for record in records if name not in record["metrics"]]
        if missing:
            notes.append(
                f"{name}: no value for {len(missing)} of {len(records)} images, which the mean leaves out (first: "
                f"{missing[0]}): no clean image, too small for this metric, or nothing to measure in it."
            )
        if name in infinite:
            notes.append(f"{name}: infinite for {infinite[name]} of {len(records)} images, which the mean leaves out.")
    return notes


def metric_is_lower_better(options: dict[str, Any]) -> bool:
    """Whether a lower value of this metric is better; where nobody says it, a higher one is, as in stock."""
    from basicsr.utils.registry import METRIC_REGISTRY

    return bool(lower_is_better(options, dict(iter(METRIC_REGISTRY)).get(options.get("type"))))


def format_table(results: dict[str, dict[str, float]]) -> str:
    """Return the results of several data sets, one line each, with their average, as papers print them."""
    metrics = list(dict.fromkeys(name for values in results.values() for name in values))
    width = max(len(name) for name in [*results, "average"])
    lines = [" " * width + "".join(f"{name:>16}" for name in metrics)]

    def line(title: str, values: dict[str, float]) -> str:
        cells = (f"{values[m]:16.4f}" if m in values else f"{'-':>16}" for m in metrics)
        return f"{title:<{width}}" + "".join(cells)

    lines += [line(title, values) for title, values in results.items()]
    means = {}
    for name in metrics:
        values = [row[name] for row in results.values() if name in row]
        means[name] = sum(values) / len(values)
    return "\n".join([*lines, line("average", means)])


def _name(data: dict[str, Any]) -> str:
    path = (data.get("lq_path") or data.get("gt_path") or ["image"])[0]
    return osp.splitext(osp.basename(path))[0]


def images_of(result: Tensor, lq: Tensor, gt: Optional[Tensor] = None) -> dict[str, Any]:
    """Return uint8 BGR images under the names that stock's metrics use, and the input as ``img_lq``."""
    from basicsr.utils import tensor2img

    given = {"img": result, "img_lq": lq, **({} if gt is None else {"img2": gt})}
    return {name: tensor2img([image.detach().cpu()]) for name, image in given.items()}


def measure_image(images: dict[str, Any], options: dict[str, Any]) -> float | None:
    """Return one metric of one image, or None where it needs a clean image and there is none."""
    from basicsr.metrics import calculate_metric
    from basicsr.utils.registry import METRIC_REGISTRY

    metric = dict(iter(METRIC_REGISTRY)).get(options["type"])
    parameters = inspect.signature(metric).parameters if metric else {}
    given = {name: image for name, image in images.items() if name in parameters or name == "img"}
    if metric is None:
        stock.logger().warning(f"val.metrics: {options['type']!r} is not registered.")
        return None
    needed = [n for n, p in parameters.items() if p.default is p.empty and n in ("img2", "img_lq") and n not in given]
    if needed:
        return None
    value = float(calculate_metric(given, {key: value for key, value in options.items() if key != "better"}))
    return None if math.isnan(value) else value  # a metric's way to pass over an image
