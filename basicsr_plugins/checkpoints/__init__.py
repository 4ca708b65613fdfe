"""The one reader of weights: published checkpoints and ours, read, recognised, converted, loaded and written."""

from basicsr_plugins.checkpoints.convert import SOURCES, convert, recognise
from basicsr_plugins.checkpoints.files import (
    is_complete,
    own_memory,
    read,
    read_checkpoint,
    read_weights,
    recorded_network,
    save,
    write,
    write_network_file,
    write_safetensors,
)
from basicsr_plugins.checkpoints.find import WRAPPERS, find_weights
from basicsr_plugins.checkpoints.fit import load_into, load_state
from basicsr_plugins.checkpoints.load import load, network_of

__all__ = [
    "SOURCES",
    "WRAPPERS",
    "convert",
    "find_weights",
    "is_complete",
    "load",
    "load_into",
    "load_state",
    "network_of",
    "own_memory",
    "read",
    "read_checkpoint",
    "read_weights",
    "recognise",
    "recorded_network",
    "save",
    "write",
    "write_network_file",
    "write_safetensors",
]
