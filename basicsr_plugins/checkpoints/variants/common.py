"""Small tools to read a network's arguments from the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

import torch

__all__ = ["Shapes", "Variant", "count", "guess", "shapes_of", "width_factor", "window_size"]

#: Key to shape; all that the readers need, so that they never touch the numbers.
Shapes = Mapping[str, tuple[int, ...]]


def _unchanged(key: str, shapes: Shapes) -> str:
    return key


@dataclass(frozen=True)
class Variant:
    """How one network's checkpoints are recognised and read.

    Attributes:
        name: The ``type`` of the network in an option file.
        marks: Regular expressions; a state dict in which each of them matches some key is of this network.
        read: Returns the constructor arguments that the (renamed) shapes show. KeyError: it is another network.
        dcpt_marks: The same for DCPT's key names, where they differ.
        rename_dcpt: Returns the key that our network has for DCPT's key.
        dcpt_arguments: What DCPT's network needs and no shape shows.
        assumed: Arguments in what ``read`` returns that no shape proves; a given value replaces them.
        derived: Keys of buffers that the constructor computes; those in a file may have another size and are left out.
        unused: First parts of the keys that the network owns and never uses; they are filled where missing.
    """

    name: str
    marks: tuple[str, ...]
    read: Callable[[Shapes], dict[str, Any]]
    dcpt_marks: tuple[str, ...] = ()
    rename_dcpt: Callable[[str, Shapes], str] = _unchanged
    dcpt_arguments: Mapping[str, Any] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    derived: str = ""
    unused: tuple[str, ...] = ()

    def matches(self, keys: Iterable[str], source: str = "official") -> bool:
        """Whether these are this network's key names, as ``source`` spells them."""
        marks = self.dcpt_marks if source == "dcpt" and self.dcpt_marks else self.marks
        keys = list(keys)
        return all(any(re.search(mark, key) for key in keys) for mark in marks)


def guess(keys: Iterable[str], variants: Iterable[Variant]) -> tuple[str, str]:
    """Return ``(source, network)`` of the first variant whose key names these are, or two empty strings."""
    keys = list(keys)
    for variant in variants:
        if variant.dcpt_marks and variant.matches(keys, "dcpt"):
            return "dcpt", variant.name
        if variant.matches(keys):
            return "official", variant.name
    return "", ""


def shapes_of(state_dict: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return ``{key: shape}``."""
    return {key: tuple(value.shape) for key, value in state_dict.items()}


def count(shapes: Shapes, prefix: str) -> int:
    """Return how many numbered children a prefix has: 1 + the largest n in ``prefix.n.``, 0 without any."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    found = (pattern.match(key) for key in shapes)
    return max((int(match.group(1)) + 1 for match in found if match), default=0)


def window_size(table: Sequence[int]) -> int:
    """Return the side of the attention windows that a table of (2 side - 1)^2 relative positions belongs to."""
    return (round(table[0] ** 0.5) + 1) // 2


def width_factor(pairs: Iterable[Sequence[int]], usual: float) -> float:
    """Return a factor r with int(width r) == hidden for all ``(width, hidden)`` pairs; ``usual`` if that fits."""
    widths = [(width, hidden) for width, hidden in pairs]

    def fits(factor: float) -> bool:
        return all(int(width * factor) == hidden for width, hidden in widths)

    if fits(usual):
        return usual
    width, hidden = max(widths)
    candidates = [hidden / width, *(round(hidden / width + step / 1000, 3) for step in range(30))]
    return next((factor for factor in candidates if fits(factor)), hidden / width)
