"""Commands whose module (torch, BasicSR ...) is imported only when they run."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any, Optional

__all__ = ["lazy_command"]


class _LazyParser(argparse.ArgumentParser):
    """Asks a module for its arguments when it is about to parse some."""

    source: tuple[str, dict[str, Any]] | None = None

    def parse_known_args(self, args: Optional[Sequence[str]] = None, namespace: Any = None) -> Any:  # type: ignore[override]
        if self.source is not None:
            (module, arguments), self.source = self.source, None
            importlib.import_module(module).add_arguments(self, **arguments)
        return super().parse_known_args(args, namespace)


def lazy_command(commands: Any, name: str, text: str, module: str, **arguments: Any) -> None:
    """Add a command whose arguments come from ``module.add_arguments(parser, **arguments)``.

    Args:
        commands: What ``add_subparsers`` returned.
        name: The command.
        text: One line for the help.
        module: Imported when the command is used.
        arguments: Passed on.
    """
    original, commands._parser_class = commands._parser_class, _LazyParser
    try:
        commands.add_parser(name, help=text, description=text).source = (module, arguments)
    finally:
        commands._parser_class = original
