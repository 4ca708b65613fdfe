"""Weights into a network that is already built, or one text about what does not fit and which network they are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor, nn

from basicsr_plugins.checkpoints.find import PREFIXES, find_weights, without_prefixes
from basicsr_plugins.checkpoints.variants import VARIANTS, Shapes, Variant, guess, shapes_of
from basicsr_plugins.core.errors import CheckpointError

__all__ = ["another_network", "another_variant", "fitted", "load_into", "load_state", "read_arguments"]


def load_state(
    network: nn.Module, weights: Mapping[str, Tensor], path: str | Path = "the weights", strict: bool = True
) -> list[str]:
    """Load weights into a network and return the names that were left alone (only when not strict).

    Raises:
        CheckpointError: Keys or shapes do not fit. The text counts them, lists the first few names, and says which
            network or variant the weights look like.
    """
    own_weights = getattr(network, "own_weights", None)
    if callable(own_weights):  # public files of some networks hold more than the network
        weights = own_weights(weights)
    own = network.state_dict()
    weights = _as_named(weights, own)
    missing, unexpected, reshaped = _differences(shapes_of(own), shapes_of(weights))
    if strict and (missing or unexpected or reshaped):
        text = _misfit(shapes_of(own), shapes_of(weights), type(network).__name__, path)
        hint = _hint(network, weights) or "Set the arguments of the network as they were when it was trained"
        raise CheckpointError(f"{text}\n  {hint}, or strict_load_*: false.")
    network.load_state_dict({key: weights[key] for key in own if key in weights and key not in reshaped}, strict=False)
    return missing + unexpected + reshaped


def load_into(network: nn.Module, state_dict: Mapping[str, Any]) -> nn.Module:
    """Load weights strictly into a network that is already built, and return it.

    Buffers that the constructor computes keep its values, and layers that nothing uses are filled where missing.

    Raises:
        CheckpointError: The weights do not fit. The text says which network and variant they look like and what to set.
    """
    variant = VARIANTS.get(type(network).__name__)
    weights = _as_named(find_weights(state_dict), network.state_dict())
    if variant is None:
        load_state(network, weights)
        return network
    hint = _hint(network, weights)
    if hint:
        raise CheckpointError(f"{hint}.")
    network.load_state_dict(fitted(network, weights, variant))
    return network


def fitted(network: nn.Module, weights: Mapping[str, Tensor], variant: Variant) -> dict[str, Tensor]:
    """Return exactly the entries that the network wants, in its order.

    Raises:
        CheckpointError: Something is missing, unexpected or of another shape.
    """
    own = network.state_dict()

    def is_derived(key: str) -> bool:
        return bool(variant.derived and re.search(variant.derived, key))

    def is_unused(key: str) -> bool:
        return key.split(".", maxsplit=1)[0] in variant.unused

    filled = {key for key in own if is_unused(key) and key not in weights}
    kept = {key: v for key, v in weights.items() if not is_derived(key) and not (is_unused(key) and key not in own)}
    wanted = {key: shape for key, shape in shapes_of(own).items() if key not in filled and not is_derived(key)}
    if any(_differences(wanted, shapes_of(kept))):
        raise CheckpointError(_misfit(wanted, shapes_of(kept), variant.name, "the state dict"))
    return {
        key: value if is_derived(key) else torch.zeros_like(value) if key in filled else kept[key]
        for key, value in own.items()
    }


def read_arguments(variant: Variant, weights: Mapping[str, Tensor]) -> Optional[dict[str, Any]]:
    """Return the constructor arguments that the weights show, or None where some that tell them are missing."""
    try:
        return variant.read(shapes_of(weights))
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None


def another_network(weights: Mapping[str, Any], source: str, network: str) -> str:
    """Say which network the weights look like instead of ``network``."""
    real_source, real = guess(weights, VARIANTS.values())
    if not real:
        shown = ", ".join(list(weights)[:3])
        return f"these are not weights of {network} (keys: {shown} ...), nor of any network known here"
    if real == "DCPTSwinIR" and real_source == "dcpt":
        real = "SwinIR"
    named = f"source: {real_source} and network: {real}" if real_source != source else f"network: {real}"
    whose = "DCPT's" if real_source == "dcpt" else "the official"
    return f"the weights look like {whose} {real}, not like {network} (source {source}). Set {named}"


def another_variant(found: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Say which arguments the weights were trained with, and which were asked for."""
    seen = ", ".join(f"{key}: {value}" for key, value in found.items())
    given = ", ".join(f"{key}: {asked.get(key)}" for key in found)
    return f"the weights are of another variant: they look like {seen}; asked for was {given}. Set {seen}"


def _hint(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Return what the weights look like, where that is another network or variant than the one at hand."""
    name = type(network).__name__
    variant = VARIANTS.get(name)
    if variant is None or not variant.matches(weights):
        known = variant is not None or guess(weights, VARIANTS.values())[1] not in ("", name)
        return another_network(weights, "official", name) if known else ""
    asked, found = read_arguments(variant, network.state_dict()), read_arguments(variant, weights)
    if not asked or not found:
        return ""
    differing = {k: v for k, v in found.items() if asked.get(k) != v and k not in variant.assumed}
    return another_variant(differing, asked) if differing else ""


def _as_named(weights: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights under the network's names, where only the prefix of a wrapper lies between the two."""
    if any(key in names for key in weights):
        return weights
    added = ({f"{prefix}{key}": value for key, value in weights.items()} for prefix in PREFIXES)
    candidates = (without_prefixes(weights), *added)
    return next((each for each in candidates if any(key in names for key in each)), weights)


def _differences(wanted: Shapes, given: Shapes) -> tuple[list[str], list[str], list[str]]:
    """Return the names that are missing, unexpected, and of another shape."""
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    return missing, unexpected, [key for key in wanted if key in given and given[key] != wanted[key]]


def _misfit(wanted: Shapes, given: Shapes, network: str, where: object) -> str:
    missing, unexpected, reshaped = _differences(wanted, given)
    shapes = [f"{key} {given[key]} instead of {wanted[key]}" for key in reshaped]
    lines = [f"{where} does not fit {network}:"]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)):
        if names:
            lines.append(f"  {len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")
    return "\n".join(lines)
