"""Published checkpoints into our networks and out again: rename, recognise the variant, fill what is never used.

>>> network_opt, weights = convert(read("dcpt_restormer.pth"), source="dcpt", network="Restormer")
>>> network_opt
{'type': 'Restormer', 'LayerNorm_type': 'BiasFree', 'attention': 'relu', 'eps': 1e-06, 'block_bias': False}
>>> write("restormer.safetensors", weights, network_opt)  # or .pth, which BasicSR loads as it is
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Optional

import torch
from torch import nn

from basicsr_plugins.checkpoints.find import unwrap
from basicsr_plugins.checkpoints.variants import VARIANTS, Variant, guess, shapes_of
from basicsr_plugins.core.errors import CheckpointError, OptionError, one_of
from basicsr_plugins.core.options import check_call
from basicsr_plugins.core.registration import provided

__all__ = ["SOURCES", "convert", "load", "recognise"]

#: Whose key names a file has: the networks' own repositories (ours are the same), or DCPT.
SOURCES = ("official", "dcpt")


def recognise(state_dict: Mapping[str, Any]) -> tuple[str, str]:
    """Return ``(source, network)`` of a state dict by its key names, or ``("", "")``."""
    return guess(unwrap(state_dict), VARIANTS.values())


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
    if source not in SOURCES:
        raise OptionError(f"source: {one_of(source, SOURCES, 'source')}")
    if network not in VARIANTS:
        raise OptionError(f"network: {one_of(network, VARIANTS, 'network')}")
    variant = VARIANTS["DCPTSwinIR" if (source, network) == ("dcpt", "SwinIR") else network]
    given = unwrap(state_dict)
    if not variant.matches(given, source):
        raise CheckpointError(_another_network(given, source, network))
    weights = given
    if source == "dcpt":
        shapes = shapes_of(given)
        weights = {variant.rename_dcpt(key, shapes): value for key, value in given.items()}
    arguments = _arguments(variant, weights, source, network_kwargs)
    constructor = _constructor(variant.name)
    built = constructor(**check_call(constructor, arguments, "network_g"))
    weights = _fitted(built, weights, variant)
    return {"type": variant.name, **_not_default(constructor, arguments)}, weights


def load(network: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load weights strictly into a network that is already built, or say which variant they are of.

    Raises:
        CheckpointError: The weights do not fit. The text says which network and variant they look like and what to set.
    """
    weights = unwrap(state_dict)
    name = type(network).__name__
    variant = VARIANTS.get(name)
    if variant is not None:
        if not variant.matches(weights):
            raise CheckpointError(_another_network(weights, "official", name))
        wanted, found = (_read_or_none(variant, part) for part in (network.state_dict(), weights))
        if wanted and found:
            differing = {
                key: value for key, value in found.items() if wanted.get(key) != value and key not in variant.assumed
            }
            if differing:
                raise CheckpointError(_another_variant(differing, wanted))
        weights = _fitted(network, weights, variant)
    else:
        _compare(shapes_of(network.state_dict()), shapes_of(weights), name)
    network.load_state_dict(weights)


def _arguments(
    variant: Variant, weights: Mapping[str, torch.Tensor], source: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    found = _read_or_none(variant, weights)
    if found is None:
        raise CheckpointError(
            f"these weights begin like {variant.name}'s, but some that tell its variant are missing: the file is cut "
            "off or of a network of another make."
        )
    if source == "dcpt":
        proved = {key: value for key, value in found.items() if key not in variant.assumed}
        found = {**found, **variant.dcpt_arguments, **proved}
    known = {key for key in found if key not in variant.assumed and key not in variant.dcpt_arguments}
    wrong = {key: found[key] for key in known if key in given and not _same(given[key], found[key])}
    if wrong:
        raise CheckpointError(_another_variant(wrong, given))
    return {**found, **given}


def _read_or_none(variant: Variant, weights: Mapping[str, torch.Tensor]) -> Optional[dict[str, Any]]:
    try:
        return variant.read(shapes_of(weights))
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None


def _fitted(network: nn.Module, weights: Mapping[str, torch.Tensor], variant: Variant) -> dict[str, torch.Tensor]:
    """Return exactly the entries that the network wants, in its order."""
    own = network.state_dict()
    derived = {key for key in own if variant.derived and re.search(variant.derived, key)}
    filled = {key for key in own if key.split(".")[0] in variant.unused and key not in weights}
    kept = {
        key: value
        for key, value in weights.items()
        if not (variant.derived and re.search(variant.derived, key))
        and not (key.split(".")[0] in variant.unused and key not in own)
    }
    wanted = {key: shape for key, shape in shapes_of(own).items() if key not in derived and key not in filled}
    _compare(wanted, shapes_of(kept), variant.name)
    return {
        key: value if key in derived else torch.zeros_like(value) if key in filled else kept[key]
        for key, value in own.items()
    }


def _compare(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], name: str) -> None:
    missing = [key for key in wanted if key not in given]
    surplus = [key for key in given if key not in wanted]
    differing = [
        f"{key} is {list(given[key])}, expected {list(shape)}"
        for key, shape in wanted.items()
        if key in given and given[key] != shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}"
        for what, keys in (("missing", missing), ("not expected", surplus), ("of another shape", differing))
        if keys
    ]
    if problems:
        raise CheckpointError(f"the weights do not fit {name}: {'; '.join(problems)}.")


def _another_network(weights: Mapping[str, Any], source: str, network: str) -> str:
    real_source, real = guess(weights, VARIANTS.values())
    if not real:
        shown = ", ".join(list(weights)[:3])
        return f"these are not weights of {network} (keys: {shown} ...), nor of any network known here."
    if real == "DCPTSwinIR" and real_source == "dcpt":
        real = "SwinIR"
    named = f"source: {real_source} and network: {real}" if real_source != source else f"network: {real}"
    whose = "DCPT's" if real_source == "dcpt" else "the official"
    return f"the weights look like {whose} {real}, not like {network} (source {source}). Set {named}."


def _another_variant(found: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    seen = ", ".join(f"{key}: {value}" for key, value in found.items())
    given = ", ".join(f"{key}: {asked.get(key)}" for key in found)
    return f"the weights are of another variant: they look like {seen}; asked for was {given}. Set {seen}."


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other))
    return one == other


def _constructor(name: str) -> Any:
    ours = provided("arch")
    if name in ours:
        return ours[name]
    from basicsr_plugins import stock

    return stock.registries()["arch"].get(name)


def _not_default(constructor: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    defaults = inspect.signature(constructor).parameters
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in arguments.items()
        if key not in defaults or not _same(value, defaults[key].default)
    }
