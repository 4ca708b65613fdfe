"""``save_pretrained`` and ``from_pretrained``: a network as a folder, and a folder as a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

import torch

from basicsr_plugins import __version__
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.checkpoints import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    folder_network,
    folder_weights,
    load_into,
    read_checkpoint,
    recorded_network,
    write,
)
from basicsr_plugins.core.atomic import atomic_path, writing_to
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.core.options import check_call
from basicsr_plugins.hub.model_card import model_card

__all__ = ["CARD_FILE", "load_network", "save_network"]

Network = TypeVar("Network", bound=HubNetwork)
CARD_FILE = "README.md"


def save_network(network: HubNetwork, folder: Union[str, Path], licence: Optional[str] = None) -> None:
    """Write a network into a folder; see ``HubNetwork.save_pretrained``.

    Raises:
        OptionError: Files of others stand there, an argument is no plain value, or the network was changed since it was
            built.
        CheckpointError: The folder cannot be written.
    """
    folder = Path(folder).expanduser()
    network_opt = _network_opt(network)
    _check_unchanged(network)
    _check_place(folder)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # a kill between the two files must not leave new weights under old arguments: the weights hold their own too
        (folder / CONFIG_FILE).unlink(missing_ok=True)
    write(folder / WEIGHTS_FILE, network.state_dict(), network_opt)
    config = {"basicsr_plugins": __version__, "network_g": network_opt}
    _write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    if not (folder / CARD_FILE).exists():  # whoever edited it keeps it
        parameters = sum(value.numel() for value in network.parameters())
        module, restores = type(network).__module__, network.restores_images
        _write_text(folder / CARD_FILE, model_card(network_opt, module, parameters, restores, licence))


def load_network(cls: type[Network], folder: Path, arguments: Mapping[str, Any]) -> Network:
    """Return the network of a folder, in eval mode; see ``HubNetwork.from_pretrained``.

    Args:
        cls: The class that it has to be.
        folder: With ``model.safetensors``.
        arguments: Constructor arguments that replace the recorded ones.

    Raises:
        OptionError: An argument is unknown.
        CheckpointError: Another network, or a broken folder.
    """
    file = folder_weights(folder)
    weights = read_checkpoint(file)
    network_opt = folder_network(folder) or recorded_network(file, weights)
    if network_opt is None:
        raise CheckpointError(
            f"{folder} does not say which arguments its network has: no network_g in {CONFIG_FILE}. "
            "basicsr_plugins.checkpoints.load(FOLDER) recognises published networks by their keys."
        )
    held, recorded = network_opt["type"], {key: value for key, value in network_opt.items() if key != "type"}
    if held != cls.__name__:
        raise CheckpointError(
            f"{folder} holds a {held}, no {cls.__name__}: use {held}.from_pretrained, or "
            "basicsr_plugins.checkpoints.load(FOLDER) for whatever it holds."
        )
    try:
        network = cls(**check_call(cls, {**recorded, **arguments}, f"{cls.__name__}.from_pretrained"))
    except OptionError as error:
        if arguments:
            raise
        raise CheckpointError(f"{folder}: the network that it says it holds cannot be built: {error}") from error
    load_into(network, weights)
    return network.eval()


def _network_opt(network: HubNetwork) -> dict[str, Any]:
    network_opt = network.network_opt()
    for name, value in network_opt.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"save_pretrained: the argument {name} of {network_opt['type']} is no plain value ({error}), so "
                f"{CONFIG_FILE} cannot hold it."
            ) from error
    return network_opt


def _check_unchanged(network: HubNetwork) -> None:
    """Compare keys and shapes with those of a fresh network: adapters and replaced layers would not load again.

    Raises:
        OptionError: They differ.
    """
    with torch.random.fork_rng(devices=[]):  # saving draws no numbers of whoever trains
        fresh = type(network)(**network.constructor_arguments())
    wanted, given = ({key: value.shape for key, value in each.state_dict().items()} for each in (fresh, network))
    differing = sorted(wanted.items() ^ given.items())
    if differing:
        raise OptionError(
            f"save_pretrained: this {type(network).__name__} was changed since it was built ({differing[0][0]}, "
            f"{len({key for key, _ in differing})} entries in all): merge an adapter into it first, or save the state "
            "dict."
        )


def _check_place(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"save_pretrained: {folder} is a file; give a folder.")
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        if (folder / name).exists() and not _is_ours(folder):
            raise OptionError(
                f"save_pretrained: {folder / name} is there and was not written by save_pretrained; give a new folder."
            )


def _is_ours(folder: Path) -> bool:
    try:
        if folder_network(folder) is not None:
            return True
        # the weights alone: a kill came before the other file
        file = folder / WEIGHTS_FILE
        return not (folder / CONFIG_FILE).exists() and recorded_network(file, None) is not None
    except CheckpointError:
        return False


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
