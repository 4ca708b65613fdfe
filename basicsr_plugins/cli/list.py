"""`basicsr-plugins list [KIND]`."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_parser", "first_sentence", "markdown_table"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    text = "list what this package provides, with one sentence each"
    parser = commands.add_parser("list", help=text, description=text)
    parser.add_argument("kind", nargs="?", help="arch, loss, dataset, metric, model or degradation")
    parser.add_argument("--markdown", action="store_true", help="as the table of the README")
    parser.set_defaults(func=_run)


def first_sentence(thing: Any) -> str:
    """Return the first sentence of a docstring."""
    text = " ".join((thing.__doc__ or "").split())
    for end in (". ", ": "):
        text = text.split(end)[0]
    return text.rstrip(".")


def markdown_table() -> str:
    """Return everything provided as a Markdown table, one row a kind."""
    from basicsr_plugins.core.registration import KINDS, provided

    rows = ["| kind | names |", "| --- | --- |"]
    for kind in KINDS:
        rows.append(f"| {kind} | {', '.join(f'`{name}`' for name in sorted(provided(kind)))} |")
    return "\n".join(rows)


def _run(arguments: argparse.Namespace) -> None:
    import basicsr_plugins
    from basicsr_plugins.core.errors import OptionError, one_of
    from basicsr_plugins.core.registration import KINDS, origin, provided

    if arguments.kind is not None and arguments.kind not in KINDS:
        raise OptionError(one_of(arguments.kind, KINDS, "kind"))
    basicsr_plugins.register()
    if arguments.markdown:
        print(markdown_table())
        return
    for kind in [arguments.kind] if arguments.kind else KINDS:
        print(f"{kind}:")
        for name, thing in sorted(provided(kind).items()):
            where_from = origin(kind, name)
            print(f"  {name:32} {first_sentence(thing)}{f' [{where_from}]' if where_from else ''}")
