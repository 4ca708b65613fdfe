"""BasicSR's ``parse_options``, patched: option files that use something of ours are checked before a folder is made."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import PluginError
from basicsr_plugins.core.plugins import import_modules
from basicsr_plugins.launch.checking import check_run
from basicsr_plugins.launch.options import use_one_gpu

__all__ = ["check_options_first"]


def check_options_first() -> None:
    """Check option files that use our models, data sets or networks as soon as BasicSR has parsed them. Idempotent."""
    options: Any = importlib.import_module("basicsr.utils.options")
    stock_parse = options.parse_options
    if getattr(stock_parse, "basicsr_plugins_patched", False):
        return

    @functools.wraps(stock_parse)
    def parse_options(*args: Any, **kwargs: Any) -> Any:
        result = stock_parse(*args, **kwargs)
        try:
            opt, arguments = result
            if opt.get("imports") is not None:
                import_modules(opt["imports"], Path(arguments.opt).resolve().parent)
            _fill_gaps(opt)
            check_run(opt)
        except PluginError as error:
            # a command-line entry, like argparse's own errors: one message, an exit code, and nothing written yet
            raise SystemExit(f"basicsr_plugins: {error}") from None
        return result

    parse_options.basicsr_plugins_patched = True  # type: ignore[attr-defined]
    options.parse_options = parse_options
    for name in ("basicsr", "basicsr.train", "basicsr.test"):  # copies, where they were imported before us
        module = sys.modules.get(name)
        if getattr(module, "parse_options", None) is stock_parse:
            module.parse_options = parse_options  # type: ignore[union-attr]


def _fill_gaps(opt: dict[str, Any]) -> None:
    """Give stock's loops the switches that they read without a default (only where a model of ours runs)."""
    ours = {*registration.provided("model"), *registration.renamed("model").values()}
    if str(opt.get("model_type")) not in ours:
        return
    use_one_gpu(opt)
    if isinstance(opt.get("val"), dict):
        opt["val"].setdefault("save_img", False)
        if opt.get("is_train"):
            opt["val"].setdefault("val_freq", float("inf"))  # at the end only
        else:
            opt["val"].setdefault("suffix", None)
