"""ABAIR phase II: one adapter for one degradation, on the frozen network of phase I (arXiv 2411.18412)."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Optional

from torch import Tensor, nn

from basicsr_plugins import checkpoints, stock
from basicsr_plugins.adapters.attach import attach_adapter, check_peft_options, load_adapter
from basicsr_plugins.adapters.folder import AdapterFolder, read_folder
from basicsr_plugins.core.checked import settings_of
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.models.parts.frozen_base import FrozenBase
from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.training import distributed
from basicsr_plugins.training.run_options import RunOptions

__all__ = ["AdapterModel"]


@dataclass
class AdapterOptions:
    """Section ``adapter``."""

    name: str = option(help="the adapter's name, as used in section `blend`")
    peft_opt: dict[str, Any] = option(
        {},
        "PEFT method (`type`, default lora), layers (`target`: a preset, names or an expression) and any field of its "
        "config. Rank 4 is the paper's best (table 6b); alpha = rank and the layers are ours",
    )
    folder: Optional[str] = option(None, "folder of an adapter to continue training, or to test")
    merge: bool = option(False, "also write net_g_<label>.pth, the base with the adapter folded in")


@provides("model")
class AdapterModel(FrozenBase, RestorationModel):
    """Train one adapter of any PEFT method; nothing else of the network changes.

    What is saved is PEFT's own folder, ``models/adapter_<iteration>/``: plain PEFT loads it.

    .. code-block:: yaml

        model_type: AdapterModel
        network_g: {type: ABAIRNet, preset: full}
        path: {pretrain_network_g: experiments/abair_pretrain/models/net_g_latest.pth}
        adapter: {name: rain, peft_opt: {type: lora, r: 4}}
        train:
          total_iter: 30000
          optim_g: {type: AdamW, lr: !!float 2e-4}
          pixel_opt: {type: L1Loss}
    """

    sections: ClassVar[Mapping[str, type]] = {"adapter": AdapterOptions}

    def __init__(self, opt: dict[str, Any]) -> None:
        self.adapter_options = settings_of(opt.get("adapter"), AdapterOptions, "adapter")
        resumed = opt["path"].get("resume_state")
        if resumed:
            iteration = Path(resumed).stem
            self.recall_base(opt, [read_folder(self.saved_adapter(Path(opt["path"]["models"]), iteration))])
        super().__init__(opt)

    def _add_network(self, name: str) -> None:
        super()._add_network(name)
        options = self.adapter_options
        if options.folder:
            where = self.base_source["path"]
            self.adapter = load_adapter(self.net_g, options.folder, trainable=self.is_train, where=where)
        else:
            source = self.base_source
            self.adapter = attach_adapter(self.net_g, options.peft_opt, network=self.base_name, path=source["path"])
            self.adapter.base["key"] = source["key"]
        self.adapter.net.to(self.device)
        distributed.send_from_rank_0(self.net_g)
        trained, total = (sum(p.numel() for p in each) for each in (self.adapter.parameters(), self.net_g.parameters()))
        stock.logger().info(
            f"Adapter {options.name!r}: {trained:,d} parameters on a base of {total - trained:,d} "
            f"(fingerprint {self.adapter.base['fingerprint']})."
        )

    def load_pretrained(self, name: str, network: nn.Module, key: Optional[str] = None) -> None:
        """Load the base; an averaged copy is copied with its adapter and has nothing to load."""
        if name not in self.averages:
            super().load_pretrained(name, network, key)

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield the restoration losses; only the adapter has gradients."""
        self.hold_statistics(self.net_g)
        yield from super().phases(current_iter)

    def evaluation_network(self, name: str = "g") -> nn.Module:
        """Return the averaged adapter's network, where there is one, on exactly the frozen base."""
        network = super().evaluation_network(name)
        if network is not self.net_g:  # averaging equal numbers rounds them
            trained = {key for key, parameter in self.net_g.named_parameters() if parameter.requires_grad}
            mine = network.state_dict()
            for key, value in self.net_g.state_dict().items():
                if key not in trained:
                    mine[key].copy_(value)
        return network

    def write_network(self, name: str, label: object) -> Path:
        """Write PEFT's folder, and with ``merge`` the merged network."""
        models, options = Path(self.opt["path"]["models"]), self.adapter_options
        path = self.saved_adapter(models, label)
        average = self.averages.get("g")
        self.adapter.save(path, options.name, weights=average, iteration=str(label), experiment=self.opt["name"])
        if options.merge:
            merged = copy.deepcopy(self.adapter)
            if average is not None:
                merged.net.load_state_dict(average.state_dict())
            checkpoints.save({"params": self.exported_weights(name, merged.merge())}, models / f"net_g_{label}.pth")
        return path

    def _prune(self) -> None:
        super()._prune()
        if self.settings.keep_last is None:
            return
        found = ((_number(path), path) for path in Path(self.opt["path"]["models"]).glob("adapter_*"))
        numbered = {number: path for number, path in found if number is not None}
        for number in sorted(numbered)[: -self.settings.keep_last]:
            shutil.rmtree(numbered[number])

    def extra_state(self) -> dict[str, Any]:
        """Return the adapter's tensors, raw and averaged: ``models/`` holds the averaged ones only."""
        networks = {"raw": self.net_g, **({"average": self.averages["g"]} if self.averages else {})}
        trained = [key for key, parameter in self.net_g.named_parameters() if parameter.requires_grad]
        return {
            "adapter": {
                which: {key: network.state_dict()[key].detach().cpu() for key in trained}
                for which, network in networks.items()
            }
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the adapter's tensors."""
        for which, tensors in state["adapter"].items():
            network = self.net_g if which == "raw" else self.averages["g"]
            unknown = network.load_state_dict(tensors, strict=False).unexpected_keys
            if unknown:
                raise OptionError(
                    f"adapter.peft_opt: the training state is of another adapter; it holds {unknown[0]}, which this "
                    "one does not have. Resume with the options that it was started with."
                )

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Check the adapter's options, and the base."""
        super().check_recipe(run, networks)
        options = run.sections["adapter"]
        folders: list[AdapterFolder] = [read_folder(options.folder)] if options.folder else []
        if not folders:
            if not run.is_train:
                raise OptionError("adapter.folder: this option is required in a test: the adapter to test.")
            check_peft_options(networks["g"], options.peft_opt)
        cls.check_base(run.opt, folders)


def _number(path: Path) -> Optional[int]:
    found = re.fullmatch(r"adapter_(\d+)", path.name)
    return int(found.group(1)) if found else None
