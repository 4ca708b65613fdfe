"""From a YAML entry to a degradation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from basicsr_plugins.core.errors import OptionError, one_of
from basicsr_plugins.core.plugins import is_path
from basicsr_plugins.core.registration import lookup, provided
from basicsr_plugins.degradations.base import Degradation

__all__ = ["build_degradation", "degradation_names"]


def degradation_names() -> dict[str, str]:
    """Return ``short name -> registered name`` of every degradation (``rain -> Rain``)."""
    return {kind.short or name.lower(): name for name, kind in provided("degradation").items()}


def build_degradation(opt: Union[str, Mapping[str, Any]], where: str = "degradation") -> Degradation:
    """Return the degradation that a YAML entry describes.

    Args:
        opt: ``{type: Rain, preset: medium}``, or just a name. Short names (``rain``) are taken too.
        where: The YAML path, for messages.

    Raises:
        OptionError: An unknown type or option; the text names the nearest ones.
    """
    entry = {"type": opt} if isinstance(opt, str) else opt
    if not isinstance(entry, Mapping) or "type" not in entry:
        raise OptionError(f"{where}: expected a degradation such as {{type: Rain, preset: medium}}, got {opt!r}.")
    kinds = provided("degradation")
    name = entry["type"]
    if not isinstance(name, str):
        raise OptionError(f"{where}.type: expected the name of a degradation, got {name!r}.")
    if is_path(name):
        kinds[name] = lookup("degradation", name, f"{where}.type")
        if not (isinstance(kinds[name], type) and issubclass(kinds[name], Degradation)):
            raise OptionError(f"{where}.type: {name} is no degradation; derive it from degradations.base.Degradation.")
    kind = kinds.get(name) or kinds.get(degradation_names().get(name, ""))
    if kind is None:
        raise OptionError(f"{where}.type: {one_of(name, [*sorted(kinds), *degradation_names()], 'degradation')}")
    return kind.from_options({key: value for key, value in entry.items() if key != "type"}, where)
