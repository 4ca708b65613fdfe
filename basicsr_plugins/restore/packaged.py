"""The one place that says which model is taken when none is named."""

from __future__ import annotations

from pathlib import Path

from basicsr_plugins.core.errors import OptionError

__all__ = ["packaged_model"]


def packaged_model() -> Path:
    """Return the model that comes with the package. There is none yet, so this says what to name instead.

    Raises:
        OptionError: Always, in this version.
    """
    raise OptionError(
        "--model: no model was named, and this version brings none of its own. Name one: a file of weights "
        "(net_g_latest.pth, or a published .pth or .safetensors), the folder of a training run "
        "(experiments/NAME), an adapter folder, or a folder of adapter folders."
    )
