"""A ready network out of one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union, overload

from torch import nn

from basicsr_plugins.checkpoints.convert import build_and_convert, constructor_of, convert, recognise
from basicsr_plugins.checkpoints.files import read_checkpoint, recorded_network
from basicsr_plugins.checkpoints.find import find_weights
from basicsr_plugins.checkpoints.fit import load_into
from basicsr_plugins.checkpoints.folder import folder_network, folder_weights
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.core.options import check_call

__all__ = ["load", "network_of"]


@overload
def load(source: Union[str, Path], entry: Optional[str] = None, **network_kwargs: Any) -> nn.Module: ...
@overload
def load(source: nn.Module, entry: Mapping[str, Any]) -> nn.Module: ...


def load(
    source: Union[str, Path, nn.Module], entry: Union[str, Mapping[str, Any], None] = None, **network_kwargs: Any
) -> nn.Module:
    """Return the network of a checkpoint in eval mode: built, filled, ready. ``net = load("restormer_5d.pth")``.

    A file that this package wrote says which network it holds. Any other is recognised by its key names, its variant
    is read from the shapes, and DCPT's names are converted.

    Args:
        source: The file, or a folder with ``model.safetensors`` (``save_pretrained``). ``load(network, state_dict)`` is
            ``load_into``.
        entry: Which entry of a container to take; see ``find_weights``.
        **network_kwargs: Further constructor arguments (``use_checkpoint=True``).

    Raises:
        CheckpointError: The file cannot be read, is of a network that is not known here, or is incomplete.
        OptionError: An argument is unknown.
    """
    if isinstance(source, nn.Module):
        if not isinstance(entry, Mapping):
            raise OptionError(f"load(network, state_dict): expected a state dict, got {type(entry).__name__}.")
        return load_into(source, entry)
    if isinstance(entry, Mapping):
        raise OptionError("load(path, entry): the entry is a name such as 'params'; give a network to fill it.")
    folder = Path(source).expanduser()
    network_opt = None
    if folder.is_dir():
        network_opt, source = folder_network(folder), folder_weights(folder)
    content = read_checkpoint(source)
    weights = find_weights(content, entry, source)
    network_opt = network_opt or recorded_network(source, content)
    if network_opt is not None:
        return load_into(_build(source, network_opt, network_kwargs), weights).eval()
    key_names, name = recognise(weights)
    if not name:
        raise CheckpointError(
            f"{source}: the keys ({', '.join(list(weights)[:3])} ...) are of no network known here. Build the network "
            "and fill it: load_into(network, read(path))."
        )
    network, _, converted = build_and_convert(weights, key_names, name, **network_kwargs)
    network.load_state_dict(converted)
    return network.eval()


def network_of(path: Union[str, Path]) -> dict[str, Any]:
    """Return the ``network_g`` of the network that ``load`` makes of a file: the recorded one, else the recognised one.

    Raises:
        CheckpointError: The file cannot be read, or is of a network that is not known here.
    """
    content = read_checkpoint(path)
    recorded = recorded_network(path, content)
    if recorded is not None:
        return recorded
    weights = find_weights(content, None, path)
    key_names, name = recognise(weights)
    if not name:
        raise CheckpointError(f"{path}: the keys ({', '.join(list(weights)[:3])} ...) are of no network known here.")
    return convert(weights, key_names, name)[0]


def _build(path: Union[str, Path], network_opt: dict[str, Any], network_kwargs: dict[str, Any]) -> nn.Module:
    arguments = {**network_opt, **network_kwargs}
    try:
        constructor = constructor_of(arguments.pop("type"))
        return constructor(**check_call(constructor, arguments, "network_g"))
    except (ValueError, TypeError) as error:
        if network_kwargs and isinstance(error, OptionError):
            raise
        raise CheckpointError(f"{path}: the network that it says it holds cannot be built: {error}") from error
