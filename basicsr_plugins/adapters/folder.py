"""Adapter folders: PEFT's own two files, and a third of ours that says on which network they were trained."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Union

import torch

from basicsr_plugins.checkpoints import read_checkpoint
from basicsr_plugins.checkpoints.whole import ADVICE, file_checksum
from basicsr_plugins.core.atomic import atomic_folder, is_leftover, remove_leftovers, usual_mode
from basicsr_plugins.core.errors import CheckpointError, OptionError

__all__ = [
    "CONFIG",
    "PROVENANCE",
    "WEIGHTS",
    "AdapterFolder",
    "adapter_folders",
    "find_adapters",
    "read_folder",
    "write_folder",
]

CONFIG, WEIGHTS, PROVENANCE = "adapter_config.json", "adapter_model.safetensors", "basicsr_plugins.json"
#: The entry of our JSON with the CRC-32 of each of the three files; plain PEFT writes none.
SUMS = "crc32"
#: What older versions of PEFT write instead of the weights; reading it can run code.
PICKLED = "adapter_model.bin"


@dataclass(frozen=True)
class AdapterFolder:
    """One adapter on disk.

    Args:
        path: The folder.
        name: The adapter's name: the one it was saved under, else the folder's.
        config: PEFT's ``adapter_config.json``.
        provenance: Our ``basicsr_plugins.json``; empty for an adapter that plain PEFT has written.
    """

    path: Path
    name: str
    config: Mapping[str, Any] = field(repr=False)
    provenance: Mapping[str, Any] = field(repr=False)

    @property
    def method(self) -> str:
        """PEFT's name of the method, in lower case (``lora``)."""
        return str(self.config.get("peft_type", "?")).lower()

    @property
    def rank(self) -> int | None:
        """The rank, for methods that have one."""
        return self.config.get("r")

    @property
    def base(self) -> str | None:
        """The fingerprint of the network that the adapter was trained on; None where plain PEFT has written it."""
        return self.provenance.get("base", {}).get("fingerprint")

    def tensors(self) -> dict[str, torch.Tensor]:
        """Read the adapter's tensors; PEFT's prefix ``base_model.model.`` is taken off the names.

        Raises:
            CheckpointError: The file is missing or broken.
            DependencyError: safetensors is not installed.
        """
        path = self.path / WEIGHTS
        found = read_checkpoint(path) if path.is_file() else {}
        self.check_weights()
        return {name.removeprefix("base_model.model."): tensor for name, tensor in found.items()}

    def check_weights(self) -> None:
        """Refuse weights that are missing, pickled, or not those that were written.

        Raises:
            CheckpointError: The text says which.
        """
        if (self.path / WEIGHTS).is_file():
            _check_sum(self.path, WEIGHTS, self.provenance)
            return
        if (self.path / PICKLED).is_file():
            raise CheckpointError(
                f"{self.path} holds its weights as {PICKLED}, a pickle, which can run code and is not read. Save the "
                f"adapter again where it comes from, with PEFT's save_pretrained(folder, safe_serialization=True): "
                f"that writes {WEIGHTS}."
            )
        raise CheckpointError(f"{self.path}: there is no {WEIGHTS}, so this is not a complete adapter folder of PEFT.")

    def check_base(self, found: str, where: str) -> None:
        """Refuse a network with other weights than the one that the adapter was trained on.

        Args:
            found: The fingerprint of the network at hand.
            where: What that network is, for the message.

        Raises:
            CheckpointError: The two differ; the text names both.
        """
        if self.base is not None and self.base != found:
            base = self.provenance["base"]
            trained_on = f"{base.get('network', 'a network')} {self.base} ({base.get('path') or 'path not recorded'})"
            raise CheckpointError(
                f"adapter {self.name!r} ({self.path}) was trained on {trained_on}, but the network here is {where} "
                f"{found}. Set path.pretrain_network_g (and param_key_g: params or params_ema) to the weights that the "
                "adapter was trained on, or train the adapter anew."
            )


def read_folder(path: Union[str, os.PathLike], name: str | None = None) -> AdapterFolder:
    """Read one adapter folder without loading PEFT.

    Raises:
        CheckpointError: It is no adapter folder, or its JSON is broken or not the one that was written.
    """
    folder = Path(path)
    if not folder.exists():
        remove_leftovers(folder.parent)
    if not (folder / CONFIG).is_file():
        what = "does not exist" if not folder.exists() else f"holds no {CONFIG}"
        raise CheckpointError(f"{folder}: {what}; expected a folder that PEFT or AdapterModel has saved.")
    config, provenance = _json(folder / CONFIG), _json(folder / PROVENANCE)
    for file in (PROVENANCE, CONFIG):
        _check_sum(folder, file, provenance)
    return AdapterFolder(folder, name or provenance.get("name") or folder.name, config, provenance)


def find_adapters(where: Union[str, os.PathLike, Mapping[str, str]]) -> dict[str, AdapterFolder]:
    """Return the adapters by name: of a mapping ``name -> folder``, or of every sub-folder of one folder.

    Raises:
        CheckpointError: The folder holds none.
        OptionError: Two adapters have one name.
    """
    if isinstance(where, Mapping):
        return {name: read_folder(path, name) for name, path in where.items()}
    root = Path(where)
    folders = [root] if (root / CONFIG).is_file() else adapter_folders(root, f"*/{CONFIG}")
    if not folders:
        raise CheckpointError(f"{root}: there is no adapter here; expected sub-folders that hold {CONFIG}.")
    found: dict[str, AdapterFolder] = {}
    for folder in map(read_folder, folders):
        if folder.name in found:
            raise OptionError(
                f"two adapters are called {folder.name!r}: {found[folder.name].path} and {folder.path}. "
                f"Give names of your own: adapters: {{name: folder, ...}}."
            )
        found[folder.name] = folder
    return found


def adapter_folders(root: Path, pattern: str) -> list[Path]:
    """Return the folders of the ``adapter_config.json`` that a pattern finds, without hidden ones and left-overs."""
    remove_leftovers(root)
    found = sorted(path.parent for path in root.glob(pattern))
    hidden = [any(part.startswith(".") for part in folder.relative_to(root).parts) for folder in found]
    return [folder for folder, skip in zip(found, hidden) if not skip and not is_leftover(folder)]


def write_folder(path: Union[str, os.PathLike], write: Callable[[Path], None], provenance: Mapping[str, Any]) -> None:
    """Let ``write`` fill a new folder, add our JSON, and put it in place of ``path`` in one step.

    Raises:
        CheckpointError: It cannot be written. Whatever stood at ``path`` is still there.
    """
    with atomic_folder(Path(path)) as fresh:
        write(fresh)
        if (fresh / WEIGHTS).is_file():
            usual_mode(fresh / WEIGHTS)
        sums = {name: file_checksum(fresh / name) for name in (CONFIG, WEIGHTS) if (fresh / name).is_file()}
        record = {**provenance, SUMS: sums}
        sums[PROVENANCE] = _own_checksum(record)
        (fresh / PROVENANCE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _own_checksum(record: Mapping[str, Any]) -> str:
    """Return the checksum of our JSON without that checksum itself."""
    others = {name: value for name, value in record[SUMS].items() if name != PROVENANCE}
    return f"{zlib.crc32(json.dumps({**record, SUMS: others}, sort_keys=True).encode()):08x}"


def _check_sum(folder: Path, file: str, provenance: Mapping[str, Any]) -> None:
    if not isinstance(provenance.get(SUMS), dict) or file not in provenance[SUMS]:
        return  # written by plain PEFT
    found = _own_checksum(provenance) if file == PROVENANCE else file_checksum(folder / file)
    if found != provenance[SUMS][file]:
        raise CheckpointError(
            f"{folder / file} is not whole: it is not the file that was saved in this folder ({PROVENANCE} holds "
            f"another checksum). {ADVICE}"
        )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}).") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content
