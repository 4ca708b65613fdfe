"""What stock's ``parse_options`` makes of an option file: overrides, ranks, seeds, phases, paths."""

from __future__ import annotations

import argparse
import difflib
import os
import random
import sys
from collections import OrderedDict
from os import path as osp
from pathlib import Path
from typing import Any

import torch

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.plugins import import_modules, refuse_foreign_code
from basicsr_plugins.core.safe_yaml import apply_overrides, load_yaml
from basicsr_plugins.launch.loop_checks import check_name
from basicsr_plugins.training import distributed

__all__ = ["DrawnSeed", "complete_options", "fill_defaults", "use_one_gpu"]


def complete_options(arguments: argparse.Namespace, root_path: str, is_train: bool) -> OrderedDict[str, Any]:
    """Read an option file and add what stock's ``parse_options`` adds: ranks, seeds, phases, paths.

    Raises:
        OptionError: The file cannot be read, or lacks ``name``, ``model_type`` or ``datasets``.
    """
    opt = load_yaml(arguments.opt)
    apply_overrides(opt, arguments.set or [])
    if getattr(arguments, "safe", False):
        refuse_foreign_code(opt)
    if opt.get("imports") is not None:
        import_modules(opt["imports"], Path(arguments.opt).expanduser().resolve().parent)
    for key, kind in (("name", str), ("model_type", str), ("datasets", dict)):
        if not isinstance(opt.get(key), kind) or not opt[key]:
            written = difflib.get_close_matches(key, [str(each) for each in opt if each != key], n=1)
            raise OptionError(f"{key}: this option is required{f'; {written[0]} is none' if written else ''}.")
    check_name(opt["name"], "name")
    opt["path"] = _section(opt, "path")
    from basicsr.utils import set_random_seed
    from basicsr.utils.dist_util import get_dist_info

    opt["num_gpu"] = _number_of_gpus(opt)
    opt["dist"] = _init_distributed(arguments.launcher, opt)
    opt["rank"], opt["world_size"] = get_dist_info()
    use_one_gpu(opt)
    seed = opt.get("manual_seed")
    if seed is None:  # one for all ranks; a resume takes it from the state
        opt["manual_seed"] = DrawnSeed(distributed.gather_objects([random.randint(1, 10000)])[0])
    elif not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise OptionError(f"manual_seed: expected a whole number of 0 or more, got {seed!r}.")
    if opt["manual_seed"] + opt["world_size"] > 2**32:
        raise OptionError(f"manual_seed: {opt['manual_seed']} is too large; numpy's generator takes less than {2**32}.")
    set_random_seed(opt["manual_seed"] + opt["rank"])
    opt["auto_resume"] = getattr(arguments, "auto_resume", False)
    opt["is_train"] = is_train
    if getattr(arguments, "debug", False) and not opt["name"].startswith("debug"):
        opt["name"] = f"debug_{opt['name']}"
    _complete_datasets(opt)
    fill_defaults(opt)
    _complete_paths(opt, root_path)
    return opt


def fill_defaults(opt: dict[str, Any]) -> None:
    """Give BasicSR's loops the documented defaults of what they read without one; ``val_freq: ~`` is one of them.

    Raises:
        OptionError: ``logger`` or ``val`` is no mapping.
    """
    if opt["is_train"]:
        opt["logger"] = _section(opt, "logger")
        for key, value in (("print_freq", 100), ("save_checkpoint_freq", 5000), ("use_tb_logger", False)):
            opt["logger"].setdefault(key, value)
    if opt.get("val") is None and opt["is_train"]:
        return
    opt["val"] = _section(opt, "val")
    opt["val"].setdefault("save_img", False)
    if not opt["is_train"]:
        opt["val"].setdefault("suffix", None)
    elif opt["val"].get("val_freq") is None:
        opt["val"]["val_freq"] = float("inf")  # at the end only


def use_one_gpu(opt: dict[str, Any]) -> None:
    """Take one GPU where several are there and no launcher was used, and say how to use all of them.

    BasicSR turns ``num_gpu: auto`` into the number of GPUs and then wraps networks in DataParallel, which our recipes
    do not support.
    """
    if opt["num_gpu"] > 1 and not opt["dist"]:
        sys.stderr.write(
            f"basicsr_plugins: {opt['num_gpu']} GPUs and no launcher: one is used. For all of them start one process "
            f"each: torchrun --nproc_per_node={opt['num_gpu']} ... --launcher pytorch\n"
        )
        opt["num_gpu"] = 1


class DrawnSeed(int):
    """A ``manual_seed`` that the option file does not give."""


def _section(opt: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a section, made if it is not there.

    Raises:
        OptionError: It is no mapping.
    """
    section = opt.get(key)
    if section is not None and not isinstance(section, dict):
        raise OptionError(f"{key}: expected a mapping of options, got {section!r}.")
    return OrderedDict() if section is None else section


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
        # of all the GPUs that torch sees: num_gpu counts those of one process
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.distributed.init_process_group("nccl" if opt["num_gpu"] > 0 else "gloo")
    return True


def _complete_datasets(opt: dict[str, Any]) -> None:
    for phase, options in opt["datasets"].items():
        if not isinstance(phase, str):
            raise OptionError(f"datasets: the key {phase!r} is {type(phase).__name__}, expected text.")
        if not isinstance(options, dict):
            raise OptionError(f"datasets.{phase}: expected a mapping of options, got {options!r}.")
        options["phase"] = phase.split("_")[0]
        if "scale" in opt:
            options["scale"] = opt["scale"]
        for key in ("dataroot_gt", "dataroot_lq"):
            if isinstance(options.get(key), str):
                options[key] = osp.expanduser(options[key])


def _complete_paths(opt: dict[str, Any], root_path: str) -> None:
    paths = opt["path"]
    for key, value in paths.items():
        if not isinstance(key, str):
            raise OptionError(f"path: the key {key!r} is {type(key).__name__}, expected text.")
        if value is not None and ("resume_state" in key or "pretrain_network" in key):
            if not isinstance(value, str):
                raise OptionError(f"path.{key}: expected a file, got {value!r}.")
            paths[key] = osp.expanduser(value)
    if not opt["is_train"]:
        root = paths.get("results_root") or osp.join(root_path, "results", opt["name"])
        paths.update(results_root=root, log=root, visualization=osp.join(root, "visualization"))
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
    if "debug" in opt["name"]:  # as stock does
        if opt.get("val"):
            opt["val"]["val_freq"] = 8
        opt["logger"].update(print_freq=1, save_checkpoint_freq=8)
