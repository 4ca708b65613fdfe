"""`basicsr-plugins train -opt FILE`."""

from __future__ import annotations

from typing import Any

from basicsr_plugins.cli.lazy import lazy_command

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add ``train`` and ``test``."""
    for name, is_train, text in (
        ("train", True, "train with an option file; experiments go to the current folder"),
        ("test", False, "test with an option file; results go to the current folder"),
    ):
        lazy_command(commands, name, text, "basicsr_plugins.launch.run", is_train=is_train)
