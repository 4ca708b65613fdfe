"""BasicSR itself: whether it is there, its five registries, its logger."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from basicsr_plugins._startup import _basicsr_plugins_bootstrap as bootstrap
from basicsr_plugins.core.errors import DependencyError

__all__ = ["is_loaded", "logger", "registries", "silent_log"]


def registries() -> dict[str, Any]:
    """Import BasicSR and return its five registries by kind (``arch``, ``dataset``, ``loss``, ``metric``, ``model``).

    Raises:
        DependencyError: BasicSR is missing, does not import, or is a fork without registries.
    """
    bootstrap.install_compat()
    try:
        importlib.import_module(bootstrap.SIGNAL)
        bootstrap.withdraw_stand_in()
        registry = importlib.import_module("basicsr.utils.registry")
        return {
            name.split("_")[0].lower(): getattr(registry, name)
            for name in ("ARCH_REGISTRY", "DATASET_REGISTRY", "LOSS_REGISTRY", "METRIC_REGISTRY", "MODEL_REGISTRY")
        }
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "basicsr":
            found = getattr(sys.modules.get("basicsr"), "__file__", None) or "nothing"
            raise DependencyError(
                f"BasicSR with registries cannot be imported (no module {error.name!r}; basicsr is {found}). Install "
                "it (pip install --no-build-isolation basicsr) or put a checkout on PYTHONPATH. Forks that only share "
                "the name have no registries and cannot be extended."
            ) from error
        raise DependencyError(f"BasicSR does not import: {error}. Install the package that it misses.") from error
    except (ImportError, AttributeError) as error:
        raise DependencyError(f"BasicSR does not import, or has no registries: {error}.") from error


def is_loaded() -> bool:
    """Whether BasicSR has been imported in this process."""
    return "basicsr.models" in sys.modules


def logger() -> Any:
    """Return BasicSR's root logger."""
    from basicsr.utils import get_root_logger

    return get_root_logger()


@contextlib.contextmanager
def silent_log() -> Iterator[None]:
    """Let nothing inside write to BasicSR's log, or set it up: a logger that is asked for early never gets its file."""
    from basicsr.utils import logger as module

    log, known = logging.getLogger("basicsr"), dict(module.initialized_logger)
    disabled, log.disabled = log.disabled, True
    module.initialized_logger["basicsr"] = True
    try:
        yield
    finally:
        log.disabled = disabled
        module.initialized_logger.clear()
        module.initialized_logger.update(known)
