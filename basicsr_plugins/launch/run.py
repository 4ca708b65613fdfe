"""Stock BasicSR's training and test loops, started safely: what the stock scripts cannot do is done here.

Differences from ``python basicsr/train.py``: experiments go to the current folder; option files are read without
running code and overridden by plain ``--set key.sub_key=value``; resuming works without CUDA, from
``path.experiments_root`` too, and only from complete checkpoints; distributed runs work on CPUs (gloo).
"""

from __future__ import annotations

import argparse
import functools
import importlib
import math
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

import basicsr_plugins
from basicsr_plugins import checkpoints
from basicsr_plugins.core.errors import CheckpointError, DataError
from basicsr_plugins.core.plugins import without_code
from basicsr_plugins.launch.checking import check_run
from basicsr_plugins.launch.options import DrawnSeed, complete_options
from basicsr_plugins.training import distributed, run_files

__all__ = ["complete_options", "find_resume_state", "network_files", "run"]


def run(arguments: argparse.Namespace, is_train: bool) -> None:
    """Train or test with stock's pipeline.

    Args:
        arguments: ``opt``, ``launcher``, ``auto_resume``, ``debug``, ``set``, ``safe``.
        is_train: Train, or test.

    Raises:
        PluginError: Anything wrong with the option file, the data or a checkpoint.
    """
    with without_code("--safe" if getattr(arguments, "safe", False) else ""):
        _run(arguments, is_train)


def _run(arguments: argparse.Namespace, is_train: bool) -> None:
    basicsr_plugins.register()
    pipeline = importlib.import_module("basicsr.train" if is_train else "basicsr.test")

    def parse_options(root_path: str, is_train: bool = True) -> tuple[OrderedDict[str, Any], argparse.Namespace]:
        opt = complete_options(arguments, root_path, is_train)
        check_run(opt)
        return opt, arguments

    ours: dict[str, Any] = {"parse_options": parse_options}
    if is_train:
        ours["load_resume_state"] = _load_resume_state
        ours["create_train_val_dataloader"] = functools.partial(_make_loaders, pipeline.create_train_val_dataloader)
    stock_own = {name: getattr(pipeline, name) for name in ours}
    vars(pipeline).update(ours)
    try:
        (pipeline.train_pipeline if is_train else pipeline.test_pipeline)(os.getcwd())
    finally:
        vars(pipeline).update(stock_own)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def find_resume_state(opt: dict[str, Any]) -> Path | None:
    """Return the state that a run is to go on from: the newest complete one whose networks are all there, or None.

    Args:
        opt: Complete options; ``auto_resume`` looks into ``path.training_states``.
    """
    if not opt["auto_resume"]:
        return Path(opt["path"]["resume_state"]) if opt["path"].get("resume_state") else None
    states = run_files.numbered_files(opt["path"]["training_states"], "", ".state")
    for iteration in sorted(states, reverse=True):
        broken = [states[iteration]]
        if checkpoints.is_complete(states[iteration]):
            files = network_files(opt, checkpoints.read_checkpoint(states[iteration]))
            broken = [file for file in files if not (file.is_dir() or checkpoints.is_complete(file))]
        if not broken:
            return states[iteration]
        _say(f"auto_resume: {', '.join(map(str, broken))} is missing or incomplete; an earlier state is taken.")
    return None


def _say(text: str) -> None:
    # before the pipeline has set up the logger, which asking for it would do without its file
    if distributed.rank() == 0:
        sys.stderr.write(f"basicsr-plugins: {text}\n")


def network_files(opt: dict[str, Any], state: dict[str, Any]) -> list[Path]:
    """Return what a training state needs beside itself: what our recipes recorded, or stock's file of each network."""
    names = (state.get("basicsr_plugins") or {}).get("networks")
    if names is None:
        names = [f"net_{key[len('network_') :]}_{state['iter']}.pth" for key in opt if key.startswith("network_")]
    return [Path(opt["path"]["models"], name) for name in names]


def _load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    from basicsr.utils import check_resume

    path = distributed.gather_objects([find_resume_state(opt)])[0]  # rank 0 decides
    if path is None:
        return None
    state = checkpoints.read_checkpoint(path)
    if not isinstance(state, dict) or not {"iter", "epoch", "optimizers", "schedulers"} <= set(state):
        raise CheckpointError(f"{path} is no training state of BasicSR.")
    missing = [str(file) for file in network_files(opt, state) if not file.exists()]
    if missing:
        raise CheckpointError(
            f"path.resume_state: {path} needs the networks of its iteration, and there is no {', '.join(missing)}. "
            "BasicSR looks for them in the experiment's own models folder: keep the name of the experiment."
        )
    drawn = (state.get("basicsr_plugins") or {}).get("manual_seed")
    if isinstance(opt["manual_seed"], DrawnSeed) and drawn is not None:
        from basicsr.utils import set_random_seed

        opt["manual_seed"] = drawn
        set_random_seed(drawn + opt["rank"])
    opt["path"]["resume_state"] = str(path)
    check_resume(opt, state["iter"])
    return state


def _make_loaders(stock_function: Any, opt: dict[str, Any], logger: Any) -> tuple[Any, ...]:
    """Stock's loaders with a true number of epochs: stock counts batches that its loader drops.

    Raises:
        DataError: An epoch has no complete batch.
    """
    train_loader, train_sampler, val_loaders, _, total_iters = stock_function(opt, logger)
    batches = len(train_loader) if train_loader is not None else 0
    if not batches:
        raise DataError(
            f"datasets.train: {len(train_sampler)} samples in an epoch of one process are fewer than one batch of "
            f"{train_loader.batch_size}. Lower batch_size_per_gpu or raise dataset_enlarge_ratio."
        )
    return train_loader, train_sampler, val_loaders, math.ceil(total_iters / batches), total_iters
