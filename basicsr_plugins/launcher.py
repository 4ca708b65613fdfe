"""Stock BasicSR's training and test loops, started safely: what the stock scripts cannot do is done here.

Differences from ``python basicsr/train.py``: experiments go to the current folder; option files are read without
running code and overridden by plain ``--set key.sub_key=value``; resuming works without CUDA, from
``path.experiments_root`` too, and only from complete checkpoints; distributed runs work on CPUs (gloo).
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from os import path as osp
from pathlib import Path
from typing import Any

import torch

import basicsr_plugins
from basicsr_plugins import stock
from basicsr_plugins.checking import check_options
from basicsr_plugins.errors import CheckpointError, OptionError
from basicsr_plugins.safe_yaml import apply_overrides, load_yaml
from basicsr_plugins.training import checkpoint_io

__all__ = ["complete_options", "find_resume_state", "run"]


def run(arguments: argparse.Namespace, is_train: bool) -> None:
    """Train or test with stock's pipeline.

    Args:
        arguments: ``opt``, ``launcher``, ``auto_resume``, ``debug``, ``set``.
        is_train: Train, or test.

    Raises:
        PluginError: Anything wrong with the option file, the data or a checkpoint.
    """
    basicsr_plugins.register()
    pipeline = importlib.import_module("basicsr.train" if is_train else "basicsr.test")

    def parse_options(root_path: str, is_train: bool = True) -> tuple[OrderedDict[str, Any], argparse.Namespace]:
        opt = complete_options(arguments, root_path, is_train)
        check_options(opt)
        return opt, arguments

    pipeline.parse_options = parse_options
    if is_train:
        pipeline.load_resume_state = _load_resume_state
    try:
        (pipeline.train_pipeline if is_train else pipeline.test_pipeline)(os.getcwd())
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def complete_options(arguments: argparse.Namespace, root_path: str, is_train: bool) -> OrderedDict[str, Any]:
    """Read an option file and add what stock's ``parse_options`` adds: ranks, seeds, phases, paths.

    Raises:
        OptionError: The file cannot be read, or lacks ``name``, ``datasets`` or ``path``.
    """
    opt = load_yaml(arguments.opt)
    apply_overrides(opt, arguments.set or [])
    for key, kind in (("name", str), ("datasets", dict)):
        if not isinstance(opt.get(key), kind) or not opt[key]:
            raise OptionError(f"{key}: this option is required.")
    opt["path"] = opt.get("path") or OrderedDict()
    from basicsr.utils import set_random_seed
    from basicsr.utils.dist_util import get_dist_info

    opt["num_gpu"] = _number_of_gpus(opt)
    opt["dist"] = _init_distributed(arguments.launcher, opt)
    opt["rank"], opt["world_size"] = get_dist_info()
    if opt.get("manual_seed") is None:
        opt["manual_seed"] = random.randint(1, 10000)
    set_random_seed(opt["manual_seed"] + opt["rank"])
    opt["auto_resume"] = getattr(arguments, "auto_resume", False)
    opt["is_train"] = is_train
    if getattr(arguments, "debug", False) and not opt["name"].startswith("debug"):
        opt["name"] = f"debug_{opt['name']}"
    _complete_datasets(opt)
    _complete_paths(opt, root_path)
    return opt


def _number_of_gpus(opt: dict[str, Any]) -> int:
    available = torch.cuda.device_count()
    wanted = opt.get("num_gpu", "auto")
    if wanted == "auto":
        return available
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
        raise OptionError(f"num_gpu: expected auto or a number of GPUs, got {wanted!r}.")
    if wanted > available:
        raise OptionError(f"num_gpu: {wanted} GPUs wanted, {available} found. Use num_gpu: auto (or 0 for the CPU).")
    return wanted


def _init_distributed(launcher: str | None, opt: dict[str, Any]) -> bool:
    if launcher is None:  # torchrun tells through the environment
        launcher = "pytorch" if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ else "none"
    if launcher == "none":
        return False
    if torch.distributed.is_initialized():
        return True
    if launcher == "slurm":
        from basicsr.utils.dist_util import init_dist

        init_dist(launcher, **opt.get("dist_params", {}))
        return True
    if "RANK" not in os.environ:
        raise OptionError(
            "--launcher pytorch: start the processes with torchrun --nproc_per_node=N -m basicsr_plugins ..."
        )
    if opt["num_gpu"] > 0:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % opt["num_gpu"])
    torch.distributed.init_process_group("nccl" if opt["num_gpu"] > 0 else "gloo")
    return True


def _complete_datasets(opt: dict[str, Any]) -> None:
    for phase, options in opt["datasets"].items():
        if not isinstance(options, dict):
            raise OptionError(f"datasets.{phase}: expected a mapping of options, got {options!r}.")
        options["phase"] = phase.split("_")[0]
        if "scale" in opt:
            options["scale"] = opt["scale"]
        for key in ("dataroot_gt", "dataroot_lq"):
            if options.get(key) is not None:
                options[key] = osp.expanduser(options[key])


def _complete_paths(opt: dict[str, Any], root_path: str) -> None:
    paths = opt["path"]
    for key, value in paths.items():
        if value is not None and ("resume_state" in key or "pretrain_network" in key):
            paths[key] = osp.expanduser(value)
    if not opt["is_train"]:
        root = paths.get("results_root") or osp.join(root_path, "results", opt["name"])
        paths.update(results_root=root, log=root, visualization=osp.join(root, "visualization"))
        opt.setdefault("val", OrderedDict())
        opt["val"] = opt["val"] or OrderedDict()
        opt["val"].setdefault("save_img", False)
        opt["val"].setdefault("suffix", None)
        return
    root = paths.get("experiments_root") or osp.join(root_path, "experiments", opt["name"])
    paths.setdefault("resume_state", None)
    paths.update(
        experiments_root=root,
        models=osp.join(root, "models"),
        training_states=osp.join(root, "training_states"),
        log=root,
        visualization=osp.join(root, "visualization"),
    )
    opt["logger"] = opt.get("logger") or OrderedDict()
    for key, value in (("print_freq", 100), ("save_checkpoint_freq", 5000), ("use_tb_logger", False)):
        opt["logger"].setdefault(key, value)
    if opt.get("val"):
        opt["val"].setdefault("save_img", False)
        opt["val"].setdefault("val_freq", float("inf"))
    if "debug" in opt["name"]:  # as stock does
        if opt.get("val"):
            opt["val"]["val_freq"] = 8
        opt["logger"].update(print_freq=1, save_checkpoint_freq=8)


def find_resume_state(opt: dict[str, Any]) -> Path | None:
    """Return the state that a run is to go on from: the newest one whose networks are all there, or None.

    Args:
        opt: Complete options; ``auto_resume`` looks into ``path.training_states``.
    """
    if not opt["auto_resume"]:
        return Path(opt["path"]["resume_state"]) if opt["path"].get("resume_state") else None
    states = checkpoint_io.numbered_files(opt["path"]["training_states"], "", ".state")
    for iteration in sorted(states, reverse=True):
        if all(file.is_file() for file in _network_files(opt, iteration)):
            return states[iteration]
        stock.logger().warning(f"{states[iteration]}: its networks are missing; an earlier state is taken.")
    return None


def _network_files(opt: dict[str, Any], iteration: int) -> Iterator[Path]:
    for key in opt:
        if key.startswith("network_"):
            yield Path(opt["path"]["models"], f"net_{key[len('network_') :]}_{iteration}.pth")


def _load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    from basicsr.utils import check_resume

    path = find_resume_state(opt)
    if path is None:
        return None
    state = checkpoint_io.read_checkpoint(path)
    if not isinstance(state, dict) or not {"iter", "epoch", "optimizers", "schedulers"} <= set(state):
        raise CheckpointError(f"{path} is no training state of BasicSR.")
    opt["path"]["resume_state"] = str(path)
    check_resume(opt, state["iter"])
    return state


def add_arguments(parser: argparse.ArgumentParser, is_train: bool) -> None:
    """Add the arguments of ``train`` or ``test`` to a parser."""
    parser.add_argument("-opt", "--opt", required=True, help="option file (YAML)")
    parser.add_argument(
        "--launcher", choices=("none", "pytorch", "slurm"), help="default: pytorch under torchrun, else none"
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--set", action="append", nargs="+", metavar="KEY=VALUE",
        help="override options: dotted keys, YAML values, e.g. --set train.ema_decay=0.999 datasets.train.gt_size=64",
    )  # fmt: skip
    if is_train:
        parser.add_argument("--auto_resume", action="store_true", help="go on from the newest complete checkpoint")
        parser.add_argument("--debug", action="store_true", help="stock's debug mode: log, save and validate often")
    else:
        parser.set_defaults(auto_resume=False, debug=False)
    parser.set_defaults(func=_train if is_train else _test)


def _train(arguments: argparse.Namespace) -> int:
    return _run(arguments, is_train=True)


def _test(arguments: argparse.Namespace) -> int:
    return _run(arguments, is_train=False)


def _run(arguments: argparse.Namespace, is_train: bool) -> int:
    arguments.set = [text for group in arguments.set or [] for text in group]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    run(arguments, is_train)
    return 0
