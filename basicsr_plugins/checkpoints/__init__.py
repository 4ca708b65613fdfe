"""The one reader of weights: published checkpoints and ours, read, recognised, converted and written."""

from basicsr_plugins.checkpoints.convert import SOURCES, convert, load, recognise
from basicsr_plugins.checkpoints.files import (
    is_complete,
    own_memory,
    read,
    read_checkpoint,
    read_weights,
    save,
    write,
    write_safetensors,
)
from basicsr_plugins.checkpoints.find import pick_weights, unwrap
from basicsr_plugins.checkpoints.fit import load_state

__all__ = [
    "SOURCES",
    "convert",
    "is_complete",
    "load",
    "load_state",
    "own_memory",
    "pick_weights",
    "read",
    "read_checkpoint",
    "read_weights",
    "recognise",
    "save",
    "unwrap",
    "write",
    "write_safetensors",
]
