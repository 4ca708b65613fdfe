"""Checkpoint files that can be verified: one changed bit between writing and reading is an error, never other values.

torch's zip files carry a CRC-32 of every entry, which ``torch.load`` does not look at. safetensors carries none: ours
have one in their metadata, over names, shapes, bytes and the other metadata. Files of others without one load as ever.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from basicsr_plugins.core.errors import CheckpointError

__all__ = ["ADVICE", "CHECKSUM", "check_archive", "check_tensors", "checksum", "file_checksum", "with_sums"]

#: The entry of safetensors' metadata that holds ``checksum``.
CHECKSUM = "basicsr_plugins.crc32"
ADVICE = "It was damaged after it was written (disk, memory or transfer): take another copy, or an older checkpoint."
#: Bytes that are read at once.
CHUNK = 1 << 22


@contextlib.contextmanager
def with_sums() -> Iterator[None]:
    """Let ``torch.save`` write checksums, even where ``torch.serialization.set_crc32_options(False)`` was called."""
    wanted = getattr(torch.serialization, "get_crc32_options", lambda: True)()  # torch before 2.6 always writes them
    if wanted:
        yield
        return
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(False)


def check_archive(path: Path) -> None:
    """Compare every entry of one of torch's zip files with its CRC-32; files that were written without any pass.

    Raises:
        CheckpointError: The archive is cut, empty, or one of its entries has changed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if start and start != b"PK" and not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            broken = None if archive.namelist() else "there is nothing in it"
            summed = any(entry.CRC for entry in archive.infolist())  # torch can be told to write zeros instead
            for entry in archive.infolist() if summed else ():
                with archive.open(entry) as content:  # reading to the end compares the sums
                    while content.read(CHUNK):
                        pass
    except Exception as error:  # a flipped header shows as any of a dozen types: wrong passwords, seeks, versions
        broken = (str(error) or type(error).__name__) if path.stat().st_size else "it is empty"
    if broken is not None:
        raise CheckpointError(f"{path} is not whole: {broken}. {ADVICE}")


def checksum(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the CRC-32 of a safetensors file's content: its tensors with names and shapes, and its metadata.

    >>> checksum({"a": torch.zeros(2)}, {}) == checksum({"a": torch.zeros(1, 2)}, {})
    False
    """
    others = {key: value for key, value in metadata.items() if key != CHECKSUM}
    shapes = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in state.items()}
    found = zlib.crc32(json.dumps([others, shapes], sort_keys=True).encode())
    for name in sorted(state):
        found = zlib.crc32(_bytes(state[name]), found)
    return f"{found:08x}"


def file_checksum(path: Path) -> str:
    """Return the CRC-32 of a whole file.

    Raises:
        CheckpointError: It cannot be read.
    """
    found = 0
    try:
        with path.open("rb") as file:
            while block := file.read(CHUNK):
                found = zlib.crc32(block, found)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    return f"{found:08x}"


def check_tensors(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Compare what was read from a safetensors file with the checksum in its metadata, where there is one.

    Raises:
        CheckpointError: They differ.
    """
    if CHECKSUM in metadata and metadata[CHECKSUM] != checksum(state, metadata):
        raise CheckpointError(f"{path} is not whole: its content does not have the checksum that it names. {ADVICE}")


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
