"""Arguments that several commands have, each with one meaning."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Optional, Union

from basicsr_plugins.core.errors import OptionError

__all__ = ["add_adapter_choice", "add_pair_rule", "add_workers", "adapter_choice", "image_bar"]


def add_adapter_choice(group: Any) -> None:
    """Add ``--base``, ``--only`` and ``--weights``; ``adapter_choice`` reads the last two."""
    group.add_argument("--base", type=Path, help="their base network, where it is not at its recorded place")
    group.add_argument("--only", metavar="NAME", help="use one adapter alone")
    group.add_argument("--weights", metavar="NAME=W,...", help="constant weights: rain=0.7,haze=0.3")


def adapter_choice(args: argparse.Namespace) -> Union[str, dict[str, float], None]:
    """Return the adapter of ``--only``, the ``{NAME: W}`` of ``--weights NAME=W,NAME=W``, or None.

    Raises:
        OptionError: Both are given, or the weights are written otherwise.
    """
    if args.only is not None and args.weights is not None:
        raise OptionError("--only and --weights: give one of them.")
    return args.only or _weights(args.weights)


def _weights(text: Optional[str]) -> Optional[dict[str, float]]:
    if text is None:
        return None
    weights: dict[str, float] = {}
    for entry in text.split(","):
        name, _, value = entry.strip().partition("=")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            raise OptionError(f"--weights: expected NAME=NUMBER,NAME=NUMBER, got {entry!r}.") from None
    return weights


def add_pair_rule(parser: argparse.ArgumentParser) -> None:
    """Add ``--pair-rule``."""
    parser.add_argument(
        "--pair-rule", default="same_stem", metavar="RULE",
        help="how names pair: same_stem (default), same, prefix:k, replace:a->b, append:a (see docs/options.md)",
    )  # fmt: skip


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``."""
    parser.add_argument("--workers", type=int, help="threads (default: one per core, at most 8)")


def image_bar(items: Any, total: int) -> Any:
    """Show the progress over images."""
    from tqdm import tqdm

    return tqdm(items, total=total, unit="image", disable=None)
