"""The exceptions that users see, and the "did you mean" sentence they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: What other frameworks and released code call an option, where the letters give no hint.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "learning_rate": ("lr",),
    "hook_names": ("feature_layers",),
    "hook_layers": ("feature_layers",),
    "neg_iter": ("steps",),
    "neg_iters": ("steps",),
    "batch_size": ("batch_size_per_gpu",),
    "num_workers": ("num_worker_per_gpu",),
    "max_iter": ("total_iter",),
    "iterations": ("total_iter",),
    "patch_size": ("gt_size",),
    "crop_size": ("gt_size",),
    "lora_r": ("r",),
    "rank": ("r",),
}

__all__ = [
    "CheckpointError",
    "DataError",
    "DependencyError",
    "OptionError",
    "PluginError",
    "TrainingError",
    "one_of",
]


class PluginError(Exception):
    """Base of every error that this package raises on purpose. Its text is meant for the user, not for a developer."""


class OptionError(PluginError, ValueError):
    """An option file, a constructor argument or a command-line value is wrong. The text starts with the YAML path."""


class DataError(PluginError, ValueError):
    """A folder, an image or a pairing is wrong. The text names the first offending file."""


class CheckpointError(PluginError, ValueError):
    """A checkpoint cannot be read, is of another network or variant, or cannot be written."""


class DependencyError(PluginError, ImportError):
    """An optional package or a file that has to be provided is missing. The text says how to get it."""


class TrainingError(PluginError, RuntimeError):
    """Training had to stop: a loss that is not finite, a collapse, a broken batch."""


def one_of(given: object, allowed: Iterable[object], what: str = "value") -> str:
    """Return ``unknown <what> 'given'; did you mean 'x'? Allowed: a, b, c.`` for an error message.

    Args:
        given: What the user wrote.
        allowed: Every allowed value, in the order in which they are to be listed.
        what: The noun for the value ("option", "arch", "feature layer").
    """
    names = [str(name) for name in allowed]
    # case and underscores are the most common slips, and difflib weighs them like any letter
    folded = {name.lower().replace("_", ""): name for name in reversed(names)}
    twin = folded.get(str(given).lower().replace("_", ""))
    known = [name for name in SYNONYMS.get(str(given).lower(), ()) if name in names]
    close = [twin] if twin else known or difflib.get_close_matches(str(given), names, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
    shown = ", ".join(names[:40]) + (f", ... ({len(names)} in all)" if len(names) > 40 else "")
    return f"unknown {what} {str(given)!r}.{hint} Allowed: {shown or 'nothing'}."
