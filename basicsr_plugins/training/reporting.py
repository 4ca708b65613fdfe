"""The part of the base model that validates, remembers the best and writes the log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from basicsr_plugins import stock
from basicsr_plugins.training import distributed
from basicsr_plugins.training.compilation import eagerly
from basicsr_plugins.training.engine_base import EngineBase
from basicsr_plugins.training.validation import (
    average_metrics,
    format_table,
    infinite_images,
    metric_is_lower_better,
    metric_notes,
    validate,
)

__all__ = ["Reporting"]


class Reporting(EngineBase):
    """Validation in stock's interface; every rank takes its share."""

    #: How many images of the last validation have an infinite value, by metric: perfect ones, of PSNR.
    infinite: Mapping[str, int] = MappingProxyType({})

    def validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool = False) -> None:
        """Validate one data set; a signal that comes meanwhile waits for the end."""
        with self.stop:
            super().validation(dataloader, current_iter, tb_logger, save_img)

    def dist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Validate over all ranks."""
        self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Validate one data set; metrics, the recipe's own figures and the best so far go to the log.

        Stock's loop validates once more when it ends. Where the last iteration was validated already, that would be the
        same images, weights and figures: one line says so, and the results stay.
        """
        dataset_name = dataloader.dataset.opt["name"]
        stamp, closing = self.weights_stamp(), current_iter
        current_iter = self.counted_iteration(current_iter)
        if closing != current_iter and self.validated.get(dataset_name) == stamp:
            self.metric_results = dict(self.results[dataset_name])
            stock.logger().info(f"Validation {dataset_name}: done at iteration {current_iter} with these weights.")
            return
        for network in self.networks.values():
            distributed.send_from_rank_0(network)  # BatchNorm statistics differ between ranks
        with eagerly():  # compiled code is made for the training's patches
            records = validate(self, dataloader, current_iter, save_img)
        for network in self.networks.values():
            network.train(self.is_train)
        extra, text = self.aggregate(records, dataset_name)
        self.metric_results = {**average_metrics(records), **extra}
        self.infinite = infinite_images(records)
        if self.is_train and self.spn and dataset_name == self._first_validated():
            self.spn.after_validation(self.metric_results)
        self.batch, self.output = {}, None
        self.results[dataset_name] = dict(self.metric_results)
        self.validated[dataset_name] = stamp
        improved = self._remember_best(dataset_name, current_iter)
        if distributed.rank() == 0:
            text = "\n".join(
                [*(f"\t   {note}" for note in metric_notes(records, self.val_settings.metrics or {})), text]
            )
            self._report(dataset_name, current_iter, tb_logger, text, len(records))
            if tb_logger:
                for name, picture in self.report_pictures().items():
                    tb_logger.add_image(f"{dataset_name}/{name}", picture, current_iter, dataformats="HWC")
            if self.is_train and self.settings.save_best:
                self.save_best(dataset_name, improved)

    def counted_iteration(self, current_iter: Any) -> Any:
        """Return the iteration that a validation belongs to: stock's loop has counted one further when it ends."""
        if self.is_train and isinstance(current_iter, int):
            return min(current_iter, int(self.settings.total_iter))
        return current_iter

    def weights_stamp(self) -> tuple[int, int]:
        """Return the last trained iteration, and a count of the changes to weights and averages.

        Of an average only what is trained counts: a recipe may restore its frozen part before it evaluates.
        """
        changes = 0
        for name, network in self.networks.items():
            average = dict(self.averages[name].named_parameters()) if name in self.averages else {}
            changes += sum(buffer._version for buffer in network.buffers())
            for key, parameter in network.named_parameters():
                changes += parameter._version
                changes += average[key]._version if parameter.requires_grad and average else 0
        return self.last_iter, changes

    def _first_validated(self) -> str:
        return next(options["name"] for phase, options in self.opt["datasets"].items() if phase != "train")

    def _remember_best(self, dataset_name: str, current_iter: Any) -> list[str]:
        best = self.best_metric_results.setdefault(dataset_name, {})
        improved = []
        for name, value in self.metric_results.items():
            options = (self.val_settings.metrics or {}).get(name, {})
            lower = metric_is_lower_better(options) if options else name in self.lower_is_better
            old = best.get(name)
            if math.isnan(value) and old is not None:
                continue
            # more perfect images are better than any mean of the others
            sign = -1 if lower else 1
            infinite = self.infinite.get(name, 0)
            before = None if old is None else (sign * old.get("infinite", 0), sign * old["val"])
            if before is None or math.isnan(before[1]) or (sign * infinite, sign * value) >= before:
                best[name] = {"better": "lower" if lower else "higher", "val": value, "iter": current_iter}
                if infinite:
                    best[name]["infinite"] = infinite
                improved.append(name)
        return improved

    def _report(self, dataset_name: str, current_iter: Any, tb_logger: Any, text: str, images: int) -> None:
        lines = [f"Validation {dataset_name} ({images} images)"]
        for name, value in self.metric_results.items():
            best = self.best_metric_results[dataset_name][name]
            text_of_best = f"\tBest: {best['val']:.4f} @ {best['iter']} iter" if self.is_train else ""
            lines.append(f"\t # {name}: {value:.4f}{text_of_best}")
            if tb_logger:
                tb_logger.add_scalar(f"metrics/{dataset_name}/{name}", value, current_iter)
        if text.strip():
            lines.append(text.rstrip("\n"))
        stock.logger().info("\n".join(lines))
        expected = [options["name"] for phase, options in self.opt["datasets"].items() if phase != "train"]
        if len(expected) > 1 and dataset_name == self._last_validated(expected):
            stock.logger().info("All data sets:\n" + format_table({n: self.results[n] for n in expected}))

    def _last_validated(self, expected: list[str]) -> str:
        """Return the data set that completes the table (stock validates them in the option file's order, or sorted)."""
        missing = [name for name in expected if name not in self.results]
        return "" if missing else list(self.results)[-1]
