"""Which way a metric is better: as the option file says, as the metric says, or as its published definition says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

__all__ = ["lower_is_better"]

#: BasicSR's own metrics, which do not say it: whether a lower value is better.
_STOCK = {
    "calculate_psnr": False,
    "calculate_psnr_pt": False,
    "calculate_ssim": False,
    "calculate_ssim_pt": False,
    "calculate_niqe": True,
}


def lower_is_better(options: Mapping[str, Any], metric: Any = None) -> Optional[bool]:
    """Return whether a lower value of a metric is better, None where nobody says it.

    A metric says it by an attribute: ``higher_is_better``, or ``higher_is_better_with``, a function of its options.

    Args:
        options: The metric's section in ``val.metrics``.
        metric: The registered function.

    Example:
        >>> lower_is_better({"type": "calculate_niqe", "crop_border": 0})
        True
        >>> lower_is_better({"type": "calculate_niqe", "better": "higher"})
        False
    """
    if options.get("better") is not None:
        return options["better"] == "lower"
    ask = getattr(metric, "higher_is_better_with", None)
    given = {key: value for key, value in options.items() if key != "type"}
    higher = ask(given) if ask is not None else getattr(metric, "higher_is_better", None)
    if higher is not None:
        return not higher
    kind = options.get("type")
    return _STOCK.get(kind) if isinstance(kind, str) else None
