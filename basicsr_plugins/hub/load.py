"""A published model's network, compared with what it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Optional

from torch import nn

from basicsr_plugins import checkpoints
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.hub.fetch import fetch
from basicsr_plugins.hub.published import PublishedModel

__all__ = ["load_published"]


def load_published(model: PublishedModel, show: Optional[Callable[..., Any]] = None) -> tuple[nn.Module, Path]:
    """Return the network of a published model in eval mode, and its file.

    Args:
        model: A row of the table.
        show: ``tqdm`` or its like, for the download.

    Raises:
        OptionError: This package cannot run it.
        DependencyError: It does not come.
        CheckpointError: The file is broken, or holds another network or variant.
    """
    path = fetch(model, show)
    try:
        network = checkpoints.load(path, **model.arguments)
    except (CheckpointError, OptionError) as error:
        raise CheckpointError(f"{path} is not {model.name}: {_what_it_is(model, path) or error}") from error
    if type(network).__name__ != model.network:
        raise CheckpointError(f"{path} is not {model.name}: {_what_it_is(model, path)}")
    return network, path


def _what_it_is(model: PublishedModel, path: Path) -> str:
    """Return which other network a file holds; empty where it is the right one, or nothing can be said."""
    try:
        content = checkpoints.read_checkpoint(path)
        recorded = checkpoints.recorded_network(path, content)
        name = recorded["type"] if recorded else checkpoints.recognise(content)[1]
    except CheckpointError:
        return ""
    same = name in (model.network, "") or {name, model.network} == {"SwinIR", "DCPTSwinIR"}
    return "" if same else f"it holds a {name}, and that is a {model.network}."
