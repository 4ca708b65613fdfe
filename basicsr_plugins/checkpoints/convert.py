"""Published checkpoints into our networks: rename the keys, recognise the variant, fill what is never used.

    network_opt, weights = convert(read("dcpt_restormer.pth"), source="dcpt", network="Restormer")
    write("restormer.safetensors", weights, network_opt)  # or .pth, which BasicSR loads as it is

``network_opt`` is then ``{type: Restormer, LayerNorm_type: BiasFree, attention: relu, eps: 1e-06, block_bias: false}``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from basicsr_plugins import stock
from basicsr_plugins.checkpoints.find import find_weights
from basicsr_plugins.checkpoints.fit import another_network, another_variant, fitted, read_arguments
from basicsr_plugins.checkpoints.variants import VARIANTS, Variant, guess, shapes_of
from basicsr_plugins.core.errors import CheckpointError, OptionError, one_of
from basicsr_plugins.core.options import check_call
from basicsr_plugins.core.registration import provided

__all__ = ["SOURCES", "build_and_convert", "constructor_of", "convert", "recognise"]

#: Whose key names a file has: the networks' own repositories (ours are the same), or DCPT.
SOURCES = ("official", "dcpt")


def recognise(state_dict: Mapping[str, Any]) -> tuple[str, str]:
    """Return ``(source, network)`` of a state dict by its key names, or ``("", "")``."""
    return guess(find_weights(state_dict), VARIANTS.values())


def convert(
    state_dict: Mapping[str, Any], source: str = "dcpt", network: str = "Restormer", **network_kwargs: Any
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return ``(network_opt, state_dict)``: a ``network_g`` for our or the stock network, and weights that fit.

    The variant (width, depths, heads, norm, biases ...) is read from the weights; what no shape shows is DCPT's or the
    published value. No number is changed; tensors that the network owns and never uses are filled with zeros.

    Args:
        state_dict: The weights, or a container around them (``params``, ``state_dict``, ``model``, ``module.`` ...).
        source: ``dcpt`` for DCPT's key names, ``official`` for those of each network's own repository.
        network: ``Restormer``, ``PromptIR``, ``NAFNet``, ``NAFNetLocal``, ``SwinIR``, ``FFANet``, ``DehazeFormer``,
            ``IDT`` or ``DegradationClassifier``. DCPT's SwinIR becomes a ``DCPTSwinIR``.
        **network_kwargs: Further constructor arguments. One that contradicts the weights is an error.

    Raises:
        CheckpointError: The weights are of another network, another variant, or incomplete.
        OptionError: ``source``, ``network`` or an argument is unknown.
    """
    return build_and_convert(state_dict, source, network, **network_kwargs)[1:]


def build_and_convert(
    state_dict: Mapping[str, Any], source: str, network: str, **network_kwargs: Any
) -> tuple[nn.Module, dict[str, Any], dict[str, torch.Tensor]]:
    """Return the network, still with its initial values, and what ``convert`` returns."""
    if source not in SOURCES:
        raise OptionError(f"source: {one_of(source, SOURCES, 'source')}")
    if network not in VARIANTS:
        raise OptionError(f"network: {one_of(network, VARIANTS, 'network')}")
    variant = VARIANTS["DCPTSwinIR" if (source, network) == ("dcpt", "SwinIR") else network]
    given = find_weights(state_dict)
    if not variant.matches(given, source):
        raise CheckpointError(another_network(given, source, network) + ".")
    weights = given
    if source == "dcpt":
        shapes = shapes_of(given)
        weights = {variant.rename_dcpt(key, shapes): value for key, value in given.items()}
    arguments = _arguments(variant, weights, source, network_kwargs)
    constructor = constructor_of(variant.name)
    built = constructor(**check_call(constructor, arguments, "network_g"))
    return built, {"type": variant.name, **_not_default(constructor, arguments)}, fitted(built, weights, variant)


def _arguments(
    variant: Variant, weights: Mapping[str, torch.Tensor], source: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    found = read_arguments(variant, weights)
    if found is None:
        raise CheckpointError(
            f"these weights begin like {variant.name}'s, but some that tell its variant are missing: the file is cut "
            "off, or its network was changed."
        )
    if source == "dcpt":
        proved = {key: value for key, value in found.items() if key not in variant.assumed}
        found = {**found, **variant.dcpt_arguments, **proved}
    known = {key for key in found if key not in variant.assumed and key not in variant.dcpt_arguments}
    wrong = {key: found[key] for key in known if key in given and not _same(given[key], found[key])}
    if wrong:
        raise CheckpointError(another_variant(wrong, given) + ".")
    return {**found, **given}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other))
    return one == other


def constructor_of(name: str) -> Any:
    """Return the class of a network: ours, else the one that is registered with BasicSR.

    Raises:
        OptionError: There is no such network.
    """
    ours = provided("arch")
    if name in ours:
        return ours[name]
    registered = dict(iter(stock.registries()["arch"]))
    if name not in registered:
        raise OptionError(one_of(name, sorted({*ours, *registered}), "arch"))
    return registered[name]


def _not_default(constructor: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    defaults = inspect.signature(constructor).parameters
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in arguments.items()
        if key not in defaults or not _same(value, defaults[key].default)
    }
