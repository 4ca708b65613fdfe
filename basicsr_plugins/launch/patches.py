"""BasicSR's ``parse_options``, patched: option files that use something of ours are checked before a folder is made."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from pathlib import Path
from typing import Any

import yaml

from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import PluginError
from basicsr_plugins.core.plugins import import_modules
from basicsr_plugins.core.safe_yaml import load_yaml
from basicsr_plugins.launch import checking
from basicsr_plugins.launch.options import complete_options, fill_defaults, use_one_gpu

__all__ = ["check_options_first"]


def check_options_first() -> None:
    """Check option files that use our models, data sets or networks as soon as BasicSR has parsed them. Idempotent."""
    options: Any = importlib.import_module("basicsr.utils.options")
    stock_parse = options.parse_options
    if getattr(stock_parse, "basicsr_plugins_patched", False):
        return

    @functools.wraps(stock_parse)
    def parse_options(*args: Any, **kwargs: Any) -> Any:
        try:
            opt, arguments = _parsed(stock_parse, *args, **kwargs)
            if opt.get("imports") is not None:
                import_modules(opt["imports"], Path(arguments.opt).resolve().parent)
            if checking.uses_ours(opt):
                _fill_gaps(opt)
            checking.check_run(opt)
        except PluginError as error:
            # a command-line entry, like argparse's own errors: one message, an exit code, and nothing written yet
            raise SystemExit(f"basicsr_plugins: {error}") from None
        return opt, arguments

    parse_options.basicsr_plugins_patched = True  # type: ignore[attr-defined]
    options.parse_options = parse_options
    for name in ("basicsr", "basicsr.train", "basicsr.test"):  # copies, where they were imported before us
        module = sys.modules.get(name)
        if getattr(module, "parse_options", None) is stock_parse:
            module.parse_options = parse_options  # type: ignore[union-attr]


def _parsed(stock_parse: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what stock's parser makes of the command line; what it cannot read and uses ours, our own parser reads.

    It stops at ``num_gpu``, ``path`` or ``logger`` left out, which have defaults, and at sections that are no mappings,
    for which ours has a sentence.
    """
    try:
        return stock_parse(*args, **kwargs)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, yaml.YAMLError):
        arguments = _command_line()
        try:
            given = load_yaml(arguments.opt)
        except PluginError:
            given = None
        if given is None or not checking.uses_ours(given):
            raise  # BasicSR's own to report
        root_path = args[0] if args else kwargs["root_path"]
        is_train = args[1] if len(args) > 1 else kwargs.get("is_train", True)
        return complete_options(arguments, root_path, is_train), arguments


def _command_line() -> argparse.Namespace:
    """Read the command line of stock's scripts, as they do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-opt", required=True)
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none")
    parser.add_argument("--auto_resume", action="store_true")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--local_rank", type=int, default=0)
    parser.add_argument("--force_yml", nargs="+", default=None)
    arguments = parser.parse_args()
    arguments.set = [_override(entry) for entry in arguments.force_yml or []]
    return arguments


def _override(entry: str) -> str:
    """Return ``train:ema_decay=0.999`` as ``train.ema_decay=0.999``."""
    keys, equals, value = entry.partition("=")
    return keys.strip().replace(":", ".") + equals + value.strip()


def _fill_gaps(opt: dict[str, Any]) -> None:
    """Give stock's loops what they read without a default, and our recipes one GPU for each process."""
    fill_defaults(opt)
    if str(opt.get("model_type")) in {*registration.provided("model"), *registration.renamed("model").values()}:
        use_one_gpu(opt)
