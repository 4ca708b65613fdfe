"""`basicsr-plugins COMMAND ...`: every module of this package with an ``add_parser`` is a command."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from typing import Optional

import basicsr_plugins
from basicsr_plugins import cli
from basicsr_plugins.core.errors import PluginError

__all__ = ["build_parser", "main", "one_message"]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command. The commands' own imports wait until one of them runs."""
    parser = argparse.ArgumentParser(
        prog="basicsr-plugins", description="Restoration recipes for stock, un-forked BasicSR."
    )
    parser.add_argument("--version", action="version", version=f"basicsr-plugins {basicsr_plugins.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in sorted(pkgutil.iter_modules(cli.__path__), key=lambda module: module.name):
        add_parser = getattr(importlib.import_module(f"{cli.__name__}.{module.name}"), "add_parser", None)
        if add_parser is not None:
            add_parser(commands)
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command and return its exit code; an error meant for the user is one message on stderr."""
    parsed = build_parser().parse_args(arguments)
    try:
        code = parsed.func(parsed) or 0
        sys.stdout.flush()
        return code
    except PluginError as error:
        print(f"basicsr-plugins {parsed.command}: {one_message(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has seen enough: basicsr-plugins list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still in the buffer goes nowhere
        return 128 + 13  # as the shell says it of a program that SIGPIPE ends
    except KeyboardInterrupt:
        print(f"basicsr-plugins {parsed.command}: interrupted.", file=sys.stderr)
        return 130


def one_message(error: PluginError) -> str:
    """Return the message proper; a data-loader worker wraps it in its own traceback."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().rpartition(f"{type(error).__name__}: ")[2]
    return text


if __name__ == "__main__":
    sys.exit(main())
