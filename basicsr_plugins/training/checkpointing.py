"""The part of the base model that saves, loads and resumes."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Optional

from torch import nn

from basicsr_plugins import checkpoints, stock
from basicsr_plugins.core import random_state
from basicsr_plugins.core.atomic import remove_leftovers
from basicsr_plugins.core.errors import CheckpointError
from basicsr_plugins.stock.sampler import current_sampler
from basicsr_plugins.training import distributed, run_files
from basicsr_plugins.training.engine_base import EngineBase
from basicsr_plugins.training.resume_notes import check_optimizers, present_setting, resume_notes, setting_in_force

__all__ = ["Checkpointing"]


class Checkpointing(EngineBase):
    """Plain BasicSR files, written completely or not at all, with everything a resume needs."""

    def load_pretrained(self, name: str, network: nn.Module, key: Optional[str] = None) -> None:
        """Load ``path.pretrain_network_<name>`` into a network, where the option is set.

        Args:
            name: The network's name ("g").
            network: The network, or its averaged copy.
            key: The entry of the file; None takes ``path.param_key_<name>`` (stock's default is ``params``).

        Raises:
            CheckpointError: The file is missing, broken or of another network.
        """
        options = self.opt["path"]
        path = options.get(f"pretrain_network_{name}")
        if path is None:
            return
        key = key or options.get(f"param_key_{name}", "params")
        weights = checkpoints.read_weights(path, key)
        strict = options.get(f"strict_load_{name}", True)
        left_alone = checkpoints.load_state(network, weights, path, strict)
        stock.logger().info(f"Loading net_{name} from {path} [{key}].")
        if left_alone:
            stock.logger().warning(f"{path}: {len(left_alone)} tensors not loaded, among them {left_alone[:3]}.")

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: Optional[str] = "params"
    ) -> None:
        """Load a checkpoint into a network (stock's interface)."""
        weights = checkpoints.read_weights(load_path, param_key)
        checkpoints.load_state(self.get_bare_model(net), weights, load_path, strict)

    def save(self, epoch: int, current_iter: int) -> None:
        """Save every network, then the training state: where a state is, its networks are complete."""
        with self.stop:
            self._save(epoch, current_iter)

    def _save(self, epoch: int, current_iter: int) -> None:
        if current_iter == -1:
            self._say_if_short()
            self.guard.refuse_most_lost(max(self.last_iter // self.settings.accumulate, 1))
        written: list[str] = []
        if distributed.rank() == 0:
            label = "latest" if current_iter == -1 else current_iter
            written = [self.write_network(name, label).name for name in self.networks]
        state = self.training_state(epoch, current_iter) if current_iter != -1 else None
        if state is not None and distributed.rank() == 0:
            state["basicsr_plugins"]["networks"] = written
            checkpoints.save(state, Path(self.opt["path"]["training_states"], f"{current_iter}.state"))
            self._prune()

    def stop_training(self, number: int) -> NoReturn:
        """Save after the last iteration and end the process with a signal's exit code, 128 + its number.

        Raises:
            SystemExit: Always; it passes through stock's loop.
        """
        self.save(self.counted_epoch or 0, self.last_iter)
        stock.logger().info(
            f"{signal.Signals(number).name}: training stopped after iteration {self.last_iter}, which is saved; "
            "auto_resume goes on from it."
        )
        raise SystemExit(128 + number)

    def write_network(self, name: str, label: object) -> Path:
        """Write ``net_<name>_<label>.pth`` with ``params`` and, where there is an average, ``params_ema``."""
        states = {"params": self.exported_weights(name, self.networks[name])}
        if name in self.averages:
            states["params_ema"] = self.exported_weights(name, self.averages[name])
        path = Path(self.opt["path"]["models"], f"net_{name}_{label}.pth")
        network_opt = self.network_options(self.run, name, self.networks)
        checkpoints.write_network_file(path, states, network_opt)
        if self.settings.safetensors:
            checkpoints.write_network_file(path.with_suffix(".safetensors"), states, network_opt)
        return path

    def save_best(self, dataset_name: str, metrics: list[str]) -> None:
        """Keep the networks under the name of every metric of ``val.metrics``, and of the accuracy, that has improved.

        Figures that a recipe adds beyond those (the accuracy of every class ...) are remembered, and keep no copies.
        """
        wanted = {*(self.val_settings.metrics or {}), "accuracy"}
        for metric in metrics:
            for name in self.networks if metric in wanted else ():
                label = f"best_{dataset_name}_{metric}"
                self.write_network(name, re.sub(r"[^\w.+-]+", "_", label))  # a name may hold a slash

    def _prune(self) -> None:
        keep = self.settings.keep_last
        if keep is None:
            return
        run_files.prune(self.opt["path"]["training_states"], "", ".state", keep)
        for name in self.networks:
            for suffix in (".pth", ".safetensors"):
                run_files.prune(self.opt["path"]["models"], f"net_{name}_", suffix, keep)

    def training_state(self, epoch: int, current_iter: int) -> dict[str, Any]:
        """Return the resume state: stock's entries, and ours under ``basicsr_plugins``. Every rank must call this."""
        return {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [_plain(scheduler.state_dict()) for scheduler in self.schedulers],
            "basicsr_plugins": {
                "scaler": self.precision.state_dict(),
                "scheduled_rates": self.warm_up.scheduled,
                "window": self.window_state(current_iter),
                "manual_seed": int(self.opt.get("manual_seed") or 0),
                "setting": self.setting,
                "skipped": self.guard.skipped,
                "lost_steps": [self.guard.lost, self.guard.in_a_row],
                "best": self.best_metric_results,
                "random": distributed.gather_objects([[random_state.get_random_state(), self.random_stream.state]]),
                "batches_into_epoch": self.batches_into_epoch,
                "recipe": self.extra_state(),
                "losses": {name: _extra_states(loss) for name, loss in self._losses().items()},
                "spn": self.spn.state_dict() if self.spn else None,
            },
        }

    def _losses(self) -> dict[str, nn.Module]:
        named = {**vars(self), **vars(self).get("extra_losses", {})}
        return {
            name: value
            for name, value in named.items()
            if isinstance(value, nn.Module) and (name.startswith("cri_") or name not in vars(self))
        }

    def fresh_setting(self) -> dict[str, Any]:
        """Return what a later resume is compared with; see ``resume_notes``."""
        names = [key for key in vars(self) if key.startswith("optimizer_")]
        held = {id(getattr(self, name)): f"optim_{name[len('optimizer_') :]}" for name in names}
        where = [held.get(id(optimizer), f"optimizer {place}") for place, optimizer in enumerate(self.optimizers)]
        schedulers = [_plain(scheduler.state_dict()) for scheduler in self.schedulers]
        return present_setting(where, self.optimizers, schedulers, self.opt)

    def _say_if_short(self) -> None:
        # stock counts the batches of an epoch with the last incomplete one, which its loader drops
        if 0 < self.last_iter < int(self.settings.total_iter):
            stock.logger().warning(
                f"Training ended at iteration {self.last_iter} of {self.settings.total_iter}: stock's loop counts "
                "incomplete batches as iterations. `basicsr-plugins train` counts them rightly; with the stock script, "
                "raise dataset_enlarge_ratio."
            )

    def window_state(self, current_iter: int) -> Optional[dict[str, Any]]:
        """Return the gradients of an accumulation window that the checkpoint falls into. Every rank must call this."""
        if current_iter % self.settings.accumulate == 0:
            return None
        parameters = self.trained_parameters()
        # linear: the average at the end of the window stays what it would have been
        distributed.average_gradients(parameters)
        gradients = [None if p.grad is None else p.grad.detach().cpu().clone() for p in parameters]
        return {"finite": self.window_is_finite, "gradients": gradients}

    def load_window_state(self, state: Optional[dict[str, Any]]) -> None:
        """Put back what ``window_state`` returned."""
        if state is None:
            return
        self.window_is_finite = state["finite"]
        for parameter, gradient in zip(self.trained_parameters(), state["gradients"]):
            parameter.grad = None if gradient is None else gradient.to(parameter.device, parameter.dtype)

    def count_batch(self) -> None:
        """Count one batch of the epoch that stock's sampler is in."""
        sampler = current_sampler()
        epoch = getattr(sampler, "epoch", None)
        if epoch != self.counted_epoch:
            self.counted_epoch = epoch
            self.batches_into_epoch = getattr(sampler, "skipped_samples", 0) // self.loader_batch_size()
        self.batches_into_epoch += 1

    def loader_batch_size(self) -> int:
        """Return the batch size that stock's loader makes."""
        options = self.opt["datasets"]["train"]
        per_gpu = options["batch_size_per_gpu"]
        return per_gpu if self.opt["dist"] else per_gpu * max(1, self.opt["num_gpu"])

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Restore everything that ``training_state`` saved.

        Raises:
            CheckpointError: The state is of another recipe.
        """
        if distributed.rank() == 0:
            for folder in ("models", "training_states"):
                remove_leftovers(self.opt["path"][folder])
        ours = resume_state.get("basicsr_plugins")
        check_optimizers((ours or {}).get("setting", {}), self.setting)
        for what, mine in (("optimizers", self.optimizers), ("schedulers", self.schedulers)):
            if len(resume_state[what]) != len(mine):
                raise CheckpointError(
                    f"path.resume_state: it holds {len(resume_state[what])} {what}, {type(self).__name__} has "
                    f"{len(mine)}. It was written by another recipe."
                )
            for part, state in zip(mine, resume_state[what]):
                part.load_state_dict(state)
        if ours is None:
            stock.logger().warning("path.resume_state was written by a stock model: random generators start anew.")
            return
        recorded = ours.get("setting", {})
        for note in resume_notes(recorded, self.setting):
            stock.logger().warning(f"Resuming with other options: {note}")
        self.setting = setting_in_force(recorded, self.setting)
        self.precision.load_state_dict(ours["scaler"])
        self.warm_up.scheduled = ours["scheduled_rates"]
        self.guard.skipped = ours["skipped"]
        self.guard.lost, self.guard.in_a_row = ours.get("lost_steps", (0, 0))
        self.best_metric_results = ours["best"]
        self.load_extra_state(ours["recipe"])
        self.load_window_state(ours.get("window"))
        for name, loss in self._losses().items():
            loss.load_state_dict({**loss.state_dict(), **ours.get("losses", {}).get(name, {})})
        if self.spn and ours.get("spn"):
            self.spn.load_state_dict(ours["spn"])
        elif self.spn:
            stock.logger().warning("path.resume_state was written without train.spn_opt: its negatives start here.")
        outside, self.random_stream.state = ours["random"][distributed.rank() % len(ours["random"])]
        random_state.set_random_state(outside)
        # once more when the sampler starts: building the loader's iterator draws from the same generators
        sampler = current_sampler()
        if sampler is not None:  # a training without BasicSR's loader has no position in an epoch
            self._say_if_inexact(sampler.dataset, ours["batches_into_epoch"])
            sampler.resume_at(
                ours["batches_into_epoch"] * self.loader_batch_size(), lambda: random_state.set_random_state(outside)
            )

    def _say_if_inexact(self, dataset: Any, batches: int) -> None:
        section = self.opt["datasets"]["train"]
        if batches and section.get("num_worker_per_gpu") and not getattr(dataset, "takes_virtual_index", False):
            stock.logger().warning(
                f"Resuming inside an epoch: {type(dataset).__name__} draws from generators of its loader processes, "
                "which start anew; its crops and flips differ from those of an undisturbed run until the next epoch."
            )


def _extra_states(loss: nn.Module) -> dict[str, Any]:
    """Return what a loss says of itself in ``get_extra_state`` (a generator ...); its weights come from elsewhere."""
    return {key: value for key, value in loss.state_dict().items() if key.endswith("_extra_state")}


def _plain(value: Any) -> Any:
    """Turn counters and the like into plain dictionaries, which every torch loads with ``weights_only=True``.

    Functions are left out: torch 2.0's OneCycleLR keeps one, which its constructor sets again.
    """
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if not callable(item)}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value
