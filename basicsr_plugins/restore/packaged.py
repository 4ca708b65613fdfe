"""The model that comes with the package, which is taken when none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from basicsr_plugins.core.errors import OptionError

__all__ = ["BUILTIN", "PACKAGED", "packaged_details", "packaged_model"]

#: What ``--model`` calls it.
BUILTIN = "builtin"
#: Base, adapters and estimator, made by tools/train_builtin.sh (docs/builtin_model.md).
PACKAGED = Path(__file__).resolve().parents[1] / "builtin_model"


def packaged_model() -> Path:
    """Return the folder of the model that comes with the package.

    Raises:
        OptionError: It is not there: the package was copied without it.
    """
    if not (PACKAGED / "base.safetensors").is_file():
        raise OptionError(
            f"--model: no model was named, and the one that comes with the package is not in {PACKAGED}. Install the "
            "package again, or name a model: a file of weights, the folder of a training run, an adapter folder, or a "
            "name that `basicsr-plugins models` lists."
        )
    return PACKAGED


def packaged_details() -> dict[str, Any]:
    """Return what `basicsr-plugins models` shows of it.

    Raises:
        OptionError: It is not there.
    """
    folder = packaged_model()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    adapters = sorted(path.name for path in (folder / "adapters").iterdir())
    return {
        "name": BUILTIN, "network": "NAFNet with adapters", "task": ", ".join(adapters).replace("_", " "),
        "licence": "Apache-2.0", "size": f"{size / 1e6:.1f} MB", "figure": "docs/builtin_model.md",
        "from": "this package", "cached": "-", "runs": "yes", "folder": str(folder),
    }  # fmt: skip
