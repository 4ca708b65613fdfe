"""Shared by the two adapter recipes: the frozen base, whose weights must be those the adapters were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from basicsr_plugins import checkpoints, stock
from basicsr_plugins.adapters.fingerprint import fingerprint
from basicsr_plugins.adapters.folder import AdapterFolder
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.training.engine_base import EngineBase

__all__ = ["FrozenBase"]


class FrozenBase(EngineBase):
    """Mix-in for a ``RestorationModel`` whose ``net_g`` is the frozen result of phase I."""

    @property
    def base_name(self) -> str:
        """What the base is called in messages and records."""
        return str(self.opt["network_g"]["type"])

    @property
    def base_source(self) -> dict[str, str]:
        """Where its weights come from: the file, and the entry in it."""
        paths = self.opt["path"]
        return {"path": str(paths.get("pretrain_network_g")), "key": str(paths.get("param_key_g", "params"))}

    @staticmethod
    def recall_base(opt: dict[str, Any], folders: Iterable[AdapterFolder]) -> None:
        """At a resume, set ``path.pretrain_network_g`` to the base again.

        BasicSR has replaced it by ``net_g_<iter>.pth`` of this run, which a frozen network never writes.
        """
        paths = opt["path"]
        if not paths.get("resume_state"):
            return
        for folder in folders:
            recorded = folder.provenance.get("base", {})
            if recorded.get("path"):
                paths["pretrain_network_g"], paths["param_key_g"] = recorded["path"], recorded.get("key", "params")
                stock.logger().info(f"Resuming on the base that {folder.path} was trained on: {recorded['path']}.")
                return

    @staticmethod
    def check_base(opt: Mapping[str, Any], folders: Iterable[AdapterFolder]) -> None:
        """Check before training that the base is given and is the one that the adapters were trained on.

        Raises:
            OptionError: There is no base.
            CheckpointError: An adapter was trained on another one.
        """
        paths = opt.get("path") or {}
        path = paths.get("pretrain_network_g")
        if not path:
            raise OptionError(
                "path.pretrain_network_g: this option is required: the frozen base network that the adapters belong to "
                "(net_g_*.pth of ABAIRPretrainModel, or any other trained network)."
            )
        folders = [folder for folder in folders if folder.base is not None]
        if folders:
            key = paths.get("param_key_g", "params")
            found = fingerprint(checkpoints.read_weights(path, key))
            for folder in folders:
                folder.check_base(found, f"{path} [{key}]")

    @staticmethod
    def hold_statistics(network: nn.Module) -> None:
        """Keep the running statistics of the frozen base's BatchNorm layers fixed."""
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    @staticmethod
    def saved_adapter(folder: Path, iteration: object) -> Path:
        """Return where ``AdapterModel`` saves its adapter at an iteration (or ``latest``)."""
        return folder / f"adapter_{iteration}"
