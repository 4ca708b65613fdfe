"""Any metric of pyiqa (LPIPS, DISTS, NIQE, MUSIQ ...) in ``val.metrics``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import torch

from basicsr_plugins.core.errors import DependencyError, OptionError, one_of
from basicsr_plugins.core.registration import provides

__all__ = ["calculate_pyiqa"]


@provides("metric")
def calculate_pyiqa(
    img: np.ndarray,
    img2: Optional[np.ndarray] = None,
    metric: str = "lpips",
    crop_border: int = 0,
    device: Optional[str] = None,
    **kwargs: Any,
) -> float:
    """Return a metric of the optional package pyiqa for one image; some download their weights on first use.

    Args:
        img: Restored image, uint8 BGR ``(h, w, 3)``.
        img2: Clean image; not used by metrics without a reference.
        metric: Name in pyiqa (``lpips``, ``dists``, ``niqe`` ...).
        crop_border: Pixels left out at each border.
        device: ``cuda`` or ``cpu``; the GPU if there is one.
        kwargs: Handed to ``pyiqa.create_metric``.

    Raises:
        DependencyError: pyiqa is not installed.
        OptionError: It has no such metric, or the metric needs a clean image and there is none.

    Example::

        val:
          metrics:
            lpips: {type: calculate_pyiqa, metric: lpips}
    """
    device = _device(device)
    scorer = _scorer(metric, device, tuple(sorted(kwargs.items())))
    images = [img]
    if getattr(scorer, "metric_mode", "FR") == "FR":
        if img2 is None:
            raise OptionError(f"val.metrics: {metric} compares with a clean image (dataroot_gt), and there is none.")
        images.append(img2)
    with torch.no_grad():
        return float(scorer(*(_tensor(image, crop_border, device) for image in images)).mean())


def _higher_is_better(options: Mapping[str, Any]) -> Optional[bool]:
    """Ask pyiqa, which knows it of each of its metrics; the scorer is the one that will measure."""
    given = {key: value for key, value in options.items() if key not in ("metric", "crop_border", "device", "better")}
    scorer = _scorer(options.get("metric", "lpips"), _device(options.get("device")), tuple(sorted(given.items())))
    lower = getattr(scorer, "lower_better", None)
    return None if lower is None else not lower


calculate_pyiqa.higher_is_better_with = _higher_is_better  # type: ignore[attr-defined]


def _device(given: Optional[str]) -> str:
    return given or ("cuda" if torch.cuda.is_available() else "cpu")


@functools.lru_cache(maxsize=16)
def _scorer(metric: str, device: str, options: tuple[tuple[str, Any], ...]) -> Any:
    try:
        import pyiqa
    except ImportError as error:
        raise DependencyError(
            f"calculate_pyiqa (metric {metric!r}) needs the package pyiqa: pip install basicsr-plugins[pyiqa]"
        ) from error
    known = list(pyiqa.list_models())
    if metric not in known:
        raise OptionError(f"val.metrics: {one_of(metric, known, 'pyiqa metric')}")
    return pyiqa.create_metric(metric, device=torch.device(device), **dict(options))


def _tensor(image: np.ndarray, border: int, device: str) -> torch.Tensor:
    inner = image[border:-border, border:-border] if border else image
    rgb = np.ascontiguousarray(inner[:, :, ::-1].transpose(2, 0, 1))
    return torch.from_numpy(rgb).to(device).float().div_(255.0)[None]
