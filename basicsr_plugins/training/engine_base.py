"""What the parts of the engine share: every attribute with its type, every hook that a recipe may override."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Optional

import torch
from basicsr.models.sr_model import SRModel
from torch import Tensor, nn

from basicsr_plugins.core.random_state import OwnStream
from basicsr_plugins.negatives.ingredient import SPN
from basicsr_plugins.training.finite import FiniteGuard
from basicsr_plugins.training.optimisation import WarmUp
from basicsr_plugins.training.pictures import Pictures
from basicsr_plugins.training.precision import Precision
from basicsr_plugins.training.progressive import ProgressivePatches
from basicsr_plugins.training.run_options import RunOptions
from basicsr_plugins.training.settings import TrainSettings, ValSettings
from basicsr_plugins.training.signals import StopSignals

__all__ = ["EngineBase"]


class EngineBase(SRModel):
    """The typed ground under ``Stepping``, ``Reporting``, ``Checkpointing`` and the recipes' mix-ins.

    It holds declarations and empty hooks only; ``RestorationModel`` builds what is declared here.
    """

    # -- what a recipe states about itself
    Settings: ClassVar[type[TrainSettings]] = TrainSettings
    ValSettings: ClassVar[type[ValSettings]] = ValSettings
    #: Sections of the option file that only this recipe has: key to options dataclass.
    sections: ClassVar[Mapping[str, type]] = {}
    #: ``"g"`` stands for ``network_g`` in the option file and ``net_g`` here.
    network_names: ClassVar[tuple[str, ...]] = ("g",)
    #: Those of them that cannot do without an optimizer.
    trained_networks: ClassVar[tuple[str, ...]] = ("g",)
    #: False for a recipe whose ``net_g`` does not learn: its past says nothing.
    takes_spn: ClassVar[bool] = True
    #: What ``feed_data`` moves to the device, beside ``lq`` and ``gt``.
    batch_keys: ClassVar[tuple[str, ...]] = ()
    #: The names, among what ``aggregate`` returns, for which a lower value is better.
    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    # -- from BasicSR's base
    opt: dict[str, Any]
    device: torch.device
    is_train: bool
    optimizers: list[torch.optim.Optimizer]
    schedulers: list[Any]

    # -- options, networks
    run: RunOptions
    settings: Any  # an instance of Settings; recipes have fields of their own. None in a test
    val_settings: Any
    scale: int
    networks: dict[str, nn.Module]
    averages: dict[str, nn.Module]

    # -- the training step
    batch: dict[str, Tensor]
    files: list[str]
    #: What ``net_g`` made last; None between batches.
    output: Any
    logged: dict[str, Tensor]
    precision: Precision
    guard: FiniteGuard
    #: Whether every loss of the running accumulation window was finite.
    window_is_finite: bool
    random_stream: OwnStream
    progressive: Optional[ProgressivePatches]
    warm_up: WarmUp
    ema_decay: float
    #: What ``train.spn_opt`` adds, where it is set.
    spn: Optional[SPN]
    #: The iteration that was trained last in this process.
    last_iter: int
    stop: StopSignals
    #: Optimizers, schedules, batch and data as they are in force, for the notes of a later resume.
    setting: dict[str, Any]
    #: How many batches of the running epoch have been trained on, and the epoch that this counts.
    batches_into_epoch: int
    counted_epoch: Optional[int]

    # -- validation
    pictures: Pictures
    results: dict[str, dict[str, float]]
    metric_results: dict[str, float]
    best_metric_results: dict[str, dict[str, dict[str, Any]]]
    #: Which weights each data set was validated with last, as ``Reporting.weights_stamp`` numbers them.
    validated: dict[str, tuple[int, int]]

    @property
    def lq(self) -> Tensor:
        """The degraded images of the batch, ``(n, c, h, w)``."""
        return self.batch["lq"]

    @property
    def gt(self) -> Tensor:
        """The clean images of the batch, ``(n, c, h * scale, w * scale)``."""
        return self.batch["gt"]

    # -- hooks

    def setup(self) -> None:
        """Build what a recipe needs in training and in validation. The networks are there already."""

    def setup_losses(self) -> None:
        """Build the losses; called for training only."""

    def compile_networks(self, arguments: dict[str, Any]) -> None:
        """Compile what a training step runs; ``arguments`` are those of ``torch.compile``."""
        raise NotImplementedError

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield the named losses of each phase of one iteration."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, Any]:
        """Return what this recipe wants to remember of the validation image in ``self`` (picklable)."""
        return {}

    def aggregate(self, records: list[dict[str, Any]], dataset_name: str) -> tuple[dict[str, float], str]:
        """Return further metrics of a data set, and lines for the log, from what ``evaluate`` remembered."""
        return {}, ""

    def report_pictures(self) -> dict[str, Any]:
        """Return pictures (h, w, 3) uint8 RGB for TensorBoard that belong to what ``aggregate`` returned last."""
        return {}

    def extra_state(self) -> dict[str, Any]:
        """Return what a resume needs beyond networks, optimizers and generators (plain containers and tensors)."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``extra_state`` returned."""

    @property
    def is_running(self) -> bool:
        """Whether a training has begun in this process and has iterations left."""
        return self.is_train and 0 < self.last_iter < int(self.settings.total_iter)

    def evaluation_network(self, name: str = "g") -> Any:
        """Return the averaged copy of a network, where there is one, in eval mode."""
        return self.averages.get(name, self.networks[name]).eval()

    def write_network(self, name: str, label: object) -> Path:
        """Write a network under a label and return the file or folder."""
        raise NotImplementedError

    def exported_weights(self, name: str, network: nn.Module) -> dict[str, Any]:
        """Return the state dict that is written for a network, on the CPU."""
        return {key: value.detach().cpu() for key, value in self.get_bare_model(network).state_dict().items()}

    @classmethod
    def read_options(cls, opt: Mapping[str, Any]) -> RunOptions:
        """Return the options of a run of this recipe."""
        return RunOptions.read(opt, cls.Settings, cls.ValSettings, cls.sections)

    @classmethod
    def used(cls, run: RunOptions) -> tuple[str, ...]:
        """Return the networks that take part with these options, in the order in which they are built."""
        return cls.network_names

    @classmethod
    def trained(cls, run: RunOptions) -> tuple[str, ...]:
        """Return the networks that need an optimizer with these options."""
        return cls.trained_networks

    @classmethod
    def network_options(cls, run: RunOptions, name: str, networks: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Return what a network is built from, its ``type`` included; ``networks`` are those that are there already."""
        return run.network(name)

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Check what only this recipe knows, before training starts. ``networks`` are freshly built, by name."""
