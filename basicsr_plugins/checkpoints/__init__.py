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
from basicsr_plugins.checkpoints.folder import CONFIG_FILE, WEIGHTS_FILE, folder_network, folder_weights
from basicsr_plugins.checkpoints.load import load, network_of

__all__ = [
    "CONFIG_FILE",
    "SOURCES",
    "WEIGHTS_FILE",
    "WRAPPERS",
    "convert",
    "find_weights",
    "folder_network",
    "folder_weights",
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
