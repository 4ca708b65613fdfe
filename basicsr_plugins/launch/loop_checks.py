"""What BasicSR's training loop asks of an option file beside the recipe: names of folders, loaders, loggers."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import torch

from basicsr_plugins.core.errors import DependencyError, OptionError, one_of

__all__ = ["check_logger", "check_name", "check_phases"]

#: File systems take 255 bytes; numbers, suffixes and time stamps are added to a name.
_LONGEST = 150


def check_name(name: Any, where: str) -> None:
    """Refuse a name that is no name of one folder: an experiment would leave ``experiments/``.

    Raises:
        OptionError: It is empty, no text, ``..``, too long, or has a separator or a control character in it.

    Example:
        >>> check_name("dcpt_restormer", "name")  # "../../x" or "a/b" would be refused
    """
    if not isinstance(name, str) or not name.strip():
        raise OptionError(f"{where}: expected a name, got {name!r}.")
    odd = [character for character in name if character in "/\\" or ord(character) < 32]
    if odd or name.strip(". ") == "" or len(name.encode(errors="replace")) > _LONGEST:
        raise OptionError(
            f"{where}: {name[:60]!r} becomes the name of a folder or file: letters, digits, - _ and . are right, "
            f"no {' '.join(repr(character) for character in dict.fromkeys(odd)) or 'more than ' + str(_LONGEST)}."
        )


def check_phases(opt: Mapping[str, Any], here: bool) -> None:
    """Check the sections of ``datasets``, and what stock's loader takes from the training set without asking.

    Args:
        opt: The options.
        here: Whether the run is to start on this machine.

    Raises:
        OptionError: A section is missing or superfluous, a name is there twice, an option of the loader is wrong.
    """
    datasets = opt.get("datasets") or {}
    allowed = ("train", "val") if opt.get("is_train") else ("test", "val")
    names: dict[str, str] = {}
    for phase, section in datasets.items():
        where = f"datasets.{phase}"
        kind = str(phase).split("_")[0]
        if kind not in allowed or (kind == "train" and phase != "train"):
            raise OptionError(f"{where}: {one_of(phase, allowed, 'phase')}")
        name = section.get("name")
        if phase == "train":
            if not isinstance(name, str) or not name:
                raise OptionError(f"{where}.name: expected the data set's name in the log, got {name!r}.")
            continue
        check_name(name, f"{where}.name")
        if name in names:
            raise OptionError(f"{where}.name: {name!r} is the name of datasets.{names[name]} too; results go by name.")
        names[name] = phase
    if not opt.get("is_train") or not datasets:  # no section at all is the parser's to report
        return
    if "train" not in datasets:
        raise OptionError("datasets.train: this section is required.")
    for key, least in (("batch_size_per_gpu", 1), ("num_worker_per_gpu", 0), ("dataset_enlarge_ratio", 1)):
        value = datasets["train"].get(key, 1 if key == "dataset_enlarge_ratio" else None)
        if value is None:
            raise OptionError(f"datasets.train.{key}: this option is required.")
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise OptionError(f"datasets.train.{key}: expected a whole number of {least} or more, got {value!r}.")
    count, most = datasets["train"]["num_worker_per_gpu"], max(64, 4 * (os.cpu_count() or 1))
    if here and count > most:  # each is a process of about 1 GB: hundreds leave no memory to any program
        raise OptionError(
            f"datasets.train.num_worker_per_gpu: {count} processes on a machine of {os.cpu_count()} cores; at most "
            f"{most} are started."
        )
    for phase, section in datasets.items():
        workers = section.get("num_worker_per_gpu") if phase == "train" else 0  # stock validates without any
        if section.get("persistent_workers") and not workers:
            raise OptionError(
                f"datasets.{phase}.persistent_workers: there are no worker processes to keep"
                + (": num_worker_per_gpu is 0." if phase == "train" else "; only datasets.train has some.")
            )
    if datasets["train"].get("prefetch_mode") == "cuda":
        if datasets["train"].get("pin_memory") is not True:
            raise OptionError("datasets.train.pin_memory: prefetch_mode cuda needs pin_memory: true.")
        if here and not torch.cuda.is_available():
            raise OptionError("datasets.train.prefetch_mode: there is no GPU here; use cpu or leave it out.")


def check_logger(opt: Mapping[str, Any]) -> None:
    """Check that what the log is to be written with is installed.

    Raises:
        OptionError: wandb without TensorBoard's log, which stock needs for it.
        DependencyError: TensorBoard or wandb is not installed.
    """
    logger = opt.get("logger") or {}
    if not opt.get("is_train") or "debug" in str(opt.get("name")):
        return
    wandb = logger.get("wandb")
    if wandb is not None and not isinstance(wandb, Mapping):
        raise OptionError(f"logger.wandb: expected a mapping of options, got {wandb!r}.")
    project = (wandb or {}).get("project")
    if project is not None:
        if not isinstance(project, str):
            raise OptionError(f"logger.wandb.project: expected a name, got {project!r}.")
        if logger.get("use_tb_logger") is not True:
            raise OptionError("logger.wandb: it is fed by TensorBoard's log: set logger.use_tb_logger: true.")
        _need("wandb", "logger.wandb")
    if logger.get("use_tb_logger"):
        _need("tensorboard", "logger.use_tb_logger")


def _need(package: str, where: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise DependencyError(f"{where}: the package {package} is not installed: pip install {package}.")
