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
from collections import OrderedDict
from typing import Any

import torch

import basicsr_plugins
from basicsr_plugins.core.errors import DataError
from basicsr_plugins.core.plugins import without_code
from basicsr_plugins.launch.checking import check_run
from basicsr_plugins.launch.options import complete_options
from basicsr_plugins.launch.resume import find_resume_state, load_resume_state, network_files

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
        ours["load_resume_state"] = load_resume_state
        ours["create_train_val_dataloader"] = functools.partial(_make_loaders, pipeline.create_train_val_dataloader)
    stock_own = {name: getattr(pipeline, name) for name in ours}
    vars(pipeline).update(ours)
    try:
        (pipeline.train_pipeline if is_train else pipeline.test_pipeline)(os.getcwd())
    finally:
        vars(pipeline).update(stock_own)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


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
