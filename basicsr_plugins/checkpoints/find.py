"""The one finder of a state dict: inside any container of the field, with the prefixes of wrappers taken off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from torch import Tensor

from basicsr_plugins.core.errors import CheckpointError, one_of

__all__ = ["ENTRIES", "PREFIXES", "WRAPPERS", "find_weights", "without_prefixes"]

#: Where containers keep the weights: BasicSR, Lightning and DehazeFormer, FFA-Net, others.
ENTRIES = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "net_g", "weights")
#: What DDP and torch.compile put before each key; never part of a network's own names.
WRAPPERS = ("module.", "_orig_mod.")
#: These, and the attribute under which a training module (PromptIR's, with Lightning) keeps its network.
PREFIXES = (*WRAPPERS, "net.", "net_g.")


def find_weights(
    content: object, entry: Optional[str] = None, where: object = "state_dict", prefixes: Sequence[str] = PREFIXES
) -> dict[str, Tensor]:
    """Return the state dict inside a container, without the prefixes of wrappers.

    Args:
        content: A state dict, or a mapping that holds one under one of ``ENTRIES``, at any depth.
        entry: The entry that is wanted. For ``params`` and ``params_ema`` the usual ones are tried where it is missing,
            as BasicSR does; any other has to be there. None tries the usual ones, ``params_ema`` first.
        where: What to call the content in messages.
        prefixes: What is taken off, wherever every key begins with it.

    Raises:
        CheckpointError: There are no tensors, or other things among them.
    """
    usual: tuple[str, ...] = ENTRIES
    if entry in ("params", "params_ema"):
        usual = (entry, "params", "params_ema", *ENTRIES)
    elif entry is not None:
        inner = _mappings(content)
        if entry not in inner:
            raise CheckpointError(f"{where}: {one_of(entry, inner, 'entry')}")
        content = inner[entry]
    # a state dict holds no mappings: one under a usual name is the weights, whatever stands beside it
    while inner := _mappings(content):
        name = next((name for name in usual if inner.get(name)), None)
        if name is None:
            break
        content = inner[name]
    return without_prefixes(_checked(content, where), prefixes)


def without_prefixes(state: Mapping[str, Tensor], prefixes: Sequence[str] = PREFIXES) -> dict[str, Tensor]:
    """Take the prefixes off that every key has, one within the other (``module._orig_mod.``)."""
    state = dict(state)
    while True:
        prefix = next((prefix for prefix in prefixes if all(key.startswith(prefix) for key in state)), None)
        if prefix is None or not state:
            return state
        state = {key[len(prefix) :]: value for key, value in state.items()}


def _mappings(content: object) -> dict[Any, Mapping[Any, Any]]:
    """Return the entries that may be state dicts."""
    entries = content.items() if isinstance(content, Mapping) else ()
    return {name: value for name, value in entries if isinstance(value, Mapping)}


def _checked(content: object, where: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        held = f"only {_names(content)}" if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{where} holds no state dict: there are no weights in it, but {held}; looked for {', '.join(ENTRIES)}."
        )
    strange = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"{where} holds no state dict: {len(strange)} of {len(content)} entries are not tensors, the first is "
            f"{str(strange[0])!r} ({type(content[strange[0]]).__name__}). Expected a state dict, or one under "
            f"{', '.join(ENTRIES)}."
        )
    return dict(content)


def _names(content: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, list(content)[:5])) or "nothing"
