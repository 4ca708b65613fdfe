"""Read option files without running anything: no python tags, no duplicate keys, overrides as plain dotted keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

import yaml

from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["apply_overrides", "load_yaml", "parse_yaml"]


class _Loader(yaml.SafeLoader):
    """SafeLoader with ordered mappings, and an error for a key that is written twice (YAML would take the last)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> OrderedDict[str, Any]:
    written = set()  # before "<<: *anchor" adds keys that may be overridden
    for key_node, _ in node.value:
        key = (key_node.tag, str(key_node.value))
        if key in written:
            problem = f"the key {key_node.value!r} is written twice"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        written.add(key)
    loader.flatten_mapping(node)
    return OrderedDict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# the line that registers this package under stock's own parser (docs/how_it_hooks_in.md): nothing is to be run here
_Loader.add_constructor("tag:yaml.org,2002:python/object/apply:basicsr_plugins.register", lambda loader, node: None)


def parse_yaml(text: str, where: str) -> Any:
    """Return what a YAML text holds.

    Args:
        text: The text.
        where: What it is, for messages: a file, an option of the command line.

    Raises:
        OptionError: It is no YAML, is nested too deep, or holds a python tag (which could run code) or a key twice.

    Example:
        >>> parse_yaml("{type: Rain, beta: 0.8}", "--with")["beta"]
        0.8
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.constructor.ConstructorError as error:
        tag = " Tags that build python objects can run code and are refused." if "tag" in str(error.problem) else ""
        raise OptionError(f"{where}, line {_line(error)}: {error.problem}.{tag}") from error
    except (yaml.YAMLError, ValueError) as error:  # a date that is none, and other values PyYAML cannot build
        raise OptionError(f"{where} is not valid YAML: {error}") from error
    except RecursionError:
        raise OptionError(f"{where}: it is nested too deep to be read as options.") from None


def load_yaml(path: str | Path) -> OrderedDict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        OptionError: The file is missing, is no YAML, holds a python tag (which could run code) or a key twice.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: the option file cannot be read: {error}.") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, OrderedDict):
        held = type(content).__name__
        raise OptionError(f"{path} holds no options: an option file is a mapping of options, this one holds {held}.")
    return content


def apply_overrides(options: MutableMapping[str, Any], overrides: Iterable[str]) -> None:
    """Change ``options`` in place by ``key.sub_key=value`` texts; values are YAML, numbers in keys count list items.

    Raises:
        OptionError: A text without ``=``, a path through something that is no mapping or list, a value that is no YAML.
    """
    for text in overrides:
        path, equals, value_text = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise OptionError(f"--set {text}: expected KEY.SUB_KEY=VALUE.")
        value = parse_yaml(value_text, f"--set {text}: the value")
        place: Any = options
        for depth, key in enumerate(keys[:-1]):
            place = _enter(place, key, ".".join(keys[: depth + 1]), text)
        if isinstance(place, list):
            place[_position(place, keys[-1], text)] = value
        elif isinstance(place, MutableMapping):
            place[keys[-1]] = value
        else:
            raise OptionError(f"--set {text}: {'.'.join(keys[:-1])} is {type(place).__name__}, it has no keys.")


def _enter(place: Any, key: str, path: str, text: str) -> Any:
    if isinstance(place, list):
        return place[_position(place, key, text)]
    if not isinstance(place, MutableMapping):
        raise OptionError(f"--set {text}: {path} does not lead through a mapping.")
    if place.get(key) is None:
        if key not in place and place:
            close = one_of(key, place, "key")
            if "Did you mean" in close:
                raise OptionError(f"--set {text}: {close}")
        place[key] = OrderedDict()
    return place[key]


def _position(place: list[Any], key: str, text: str) -> int:
    if not key.isdigit() or int(key) >= len(place):
        raise OptionError(f"--set {text}: {key!r} is no place in a list of {len(place)}.")
    return int(key)


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 0
