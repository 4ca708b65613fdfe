"""The one reader of weights: published checkpoints and ours, read, recognised, converted and written."""

from basicsr_plugins.checkpoints.convert import SOURCES, convert, load, recognise
from basicsr_plugins.checkpoints.files import read, unwrap, write

__all__ = ["SOURCES", "convert", "load", "read", "recognise", "unwrap", "write"]
