"""What recording a network takes, whichever way."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

import basicsr_plugins
from basicsr_plugins.core.errors import CheckpointError, PluginError
from basicsr_plugins.export.network import AnySize, Plain

__all__ = ["RECORDED", "example", "in_precision", "notes", "quietly"]

#: Not square: a network may have been built for square images of one size, and prepared something for these alone.
RECORDED = (64, 96)


def example(plain: Plain) -> Tensor:
    """Return the image that is sent through the network while it is recorded."""
    return torch.rand(1, plain.channels, *RECORDED, generator=torch.Generator().manual_seed(0))


def in_precision(plain: Plain, multiple: int, dtype: torch.dtype) -> AnySize:
    """Return a copy of the network that computes in ``dtype`` and pads to ``multiple``."""
    return AnySize(deepcopy(plain.network).to(dtype), multiple, plain.scale, dtype).eval()


def notes(plain: Plain, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is written into a file about itself."""
    return {
        "basicsr_plugins": basicsr_plugins.__version__,
        "network_g": dict(plain.network_opt),
        "model": plain.label,
        "channels": plain.channels,
        "scale": plain.scale,
        "range": "[0, 1], RGB, not clamped",
        **facts,
    }


@contextlib.contextmanager
def quietly(what: str) -> Iterator[None]:
    """Keep back the warnings and dumps of torch's exporters, and turn their errors into one sentence.

    Raises:
        CheckpointError: Whatever was raised inside.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except (PluginError, MemoryError):
        raise
    except Exception as error:  # each exporter has types of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise CheckpointError(f"{what}: {reason}.") from error
    finally:
        logging.disable(level)
