"""What the generalization studies report at validation: decoupled rain scores, removal, skipped images, a JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Optional

import numpy as np
from torch import Tensor

from basicsr_plugins.core.atomic import atomic_path
from basicsr_plugins.core.options import fraction, option
from basicsr_plugins.metrics.degradation_removal_metric import degradation_removal
from basicsr_plugins.metrics.deraining import decoupled_errors
from basicsr_plugins.training import distributed
from basicsr_plugins.training.engine_base import EngineBase
from basicsr_plugins.training.settings import ValSettings

__all__ = ["RESULTS_FILE", "DecoupledScores", "StudyValSettings"]

#: Where the last validation of every data set is written, in the run's folder.
RESULTS_FILE = "study_results.json"


@dataclass
class StudyValSettings(ValSettings):
    """Section ``val`` of the studies."""

    rain_scores: bool = option(
        True, "report E_R, E_B, removal ratio and residual; false for noise and blur, which have no mask"
    )
    mask_threshold: float = option(
        10 / 255,
        "a pixel of a pair is rain where |lq - gt| exceeds this, where the data set returns no rain_mask",
        check=fraction,
    )
    least_share: float = option(
        0.01, "an image with a smaller share of rain, or of background, is skipped", check=fraction
    )


class DecoupledScores(EngineBase):
    """Mix-in for a ``RestorationModel``: E_R, E_B, removal ratio and residual for every validation set.

    The mask of rain is the data set's ``rain_mask`` (``RainSynthesisDataset``), or where input and clean image differ.
    ``removal`` is the projection on the degradation, for noise and blur, which have no mask; there
    ``rain_scores: false`` leaves the other scores out. Images with too little rain or too little background
    (``least_share``) are left out of the rain scores and counted in ``skipped``.
    """

    ValSettings: ClassVar[type[ValSettings]] = StudyValSettings
    batch_keys: ClassVar[tuple[str, ...]] = ("rain_mask",)
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"e_b", "residual", "skipped", "ceiling_e_b"})

    def evaluate(self) -> dict[str, Any]:
        """Score the validation image in ``self``."""
        if "gt" not in self.batch:
            return {}
        return {**super().evaluate(), **self.scores(self.output, self.lq)}

    def scores(self, output: Tensor, degraded: Tensor) -> dict[str, Any]:
        """Return the scores of one restored image (1, 3, h, w); ``rain`` is None where it is skipped."""
        images = _array(output), _array(degraded), _array(self.gt)
        if not self.val_settings.rain_scores:
            return {"removal": degradation_removal(*images)}
        mask = self.batch["rain_mask"][0, 0].cpu().numpy() if "rain_mask" in self.batch else None
        settings = self.val_settings
        errors = decoupled_errors(*images, mask, settings.mask_threshold, settings.least_share)
        rain = {
            "e_r": errors.removal,
            "e_b": errors.background,
            "e_r_oracle": errors.perfect_removal,
            "removal_ratio": errors.removal_ratio,
            "residual": errors.residual,
        }
        skipped = any(np.isnan(value) for value in rain.values())
        return {"rain": None if skipped else rain, "removal": degradation_removal(*images)}

    def aggregate(self, records: list[dict[str, Any]], dataset_name: str) -> tuple[dict[str, float], str]:
        """Return the means over the images, and how many were skipped."""
        metrics, text = super().aggregate(records, dataset_name)
        removals = [record["removal"] for record in records if not np.isnan(record.get("removal", np.nan))]
        if removals:
            metrics["removal"] = float(np.mean(removals))
        evaluated = [record for record in records if "rain" in record]
        if not evaluated:
            return metrics, text
        scored = [record["rain"] for record in evaluated if record["rain"]]
        if scored:
            metrics.update({name: float(np.mean([scores[name] for scores in scored])) for name in scored[0]})
        metrics["skipped"] = float(len(evaluated) - len(scored))
        line = f"\t rain scores over {len(scored)} images, {len(evaluated) - len(scored)} skipped"
        if scored:
            line += ", x255: " + ", ".join(f"{name} {255 * metrics[name]:.2f}" for name in ("e_r", "e_r_oracle", "e_b"))
        return metrics, "\n".join(part for part in (text, line) if part)

    def nondist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Validate as always, then write the figures where a sweep finds them."""
        super().nondist_validation(dataloader, current_iter, tb_logger, save_img)
        folder = self.opt["path"].get("experiments_root" if self.is_train else "results_root")
        if folder and distributed.rank() == 0:
            self._write_results(Path(folder) / RESULTS_FILE, dataloader, current_iter)

    def _write_results(self, path: Path, dataloader: Any, current_iter: Any) -> None:
        results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        name = dataloader.dataset.opt["name"]
        counted = self.counted_iteration(current_iter)
        iteration: Optional[int] = counted if isinstance(counted, int) else None
        results[name] = {"iteration": iteration, "images": len(dataloader.dataset), **self.metric_results}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(results, indent=2), encoding="utf-8")


def _array(image: Tensor) -> np.ndarray:
    """(1, 3, h, w) to (h, w, 3)."""
    return image[0].detach().float().cpu().numpy().transpose(1, 2, 0)
