"""Write docs/options.md and the README's table from what the code declares:  python tools/write_docs.py [--check]"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import basicsr_plugins  # noqa: E402 - this clone's, installed or not
from basicsr_plugins.cli.list import first_sentence, markdown_table  # noqa: E402
from basicsr_plugins.core.registration import provided  # noqa: E402


def type_name(annotation: Any) -> str:
    """Return an annotation as a reader of YAML would call it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Union:
        return " or ".join("~" if a is type(None) else type_name(a) for a in arguments)
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in arguments)
    if origin in (list, tuple) and arguments:
        return f"list of {type_name(arguments[0])}"
    if origin is dict or annotation is dict or dataclasses.is_dataclass(annotation):
        return "mapping"
    names = {bool: "true/false", int: "whole number", float: "number", str: "text", Any: "anything"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def shown(default: Any) -> str:
    """Return a default as YAML would show it."""
    if default is dataclasses.MISSING:
        return "**required**"
    return {None: "`~`", True: "`true`", False: "`false`"}.get(
        default if isinstance(default, (bool, type(None))) else "", f"`{default}`"
    )


def field_rows(schema: type, without: type | None = None) -> list[str]:
    """Return one table row per field, leaving out those that another schema has already."""
    hints = typing.get_type_hints(schema)
    known = {field.name for field in dataclasses.fields(without)} if without else set()
    rows = []
    for field in dataclasses.fields(schema):
        if field.name in known or not field.init:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        text, source = field.metadata.get("help", ""), field.metadata.get("source", "") or "ours"
        cells = (f"`{field.name}`", type_name(hints[field.name]), shown(default), text, source)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def table(rows: list[str]) -> str:
    """Return a table of options, or a sentence where there are none."""
    if not rows:
        return "No further options.\n"
    return (
        "\n".join(["| option | type | default | meaning | source |", "| --- | --- | --- | --- | --- |", *rows]) + "\n"
    )


def arguments_line(thing: Any) -> str:
    """Return a constructor's arguments with their defaults in one line."""
    parts = []
    for name, parameter in inspect.signature(thing).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        parts.append(name if parameter.default is parameter.empty else f"{name}={parameter.default!r}")
    return f"`{', '.join(parts)}`" if parts else "no arguments"


def options_page() -> str:
    """Return docs/options.md."""
    from basicsr_plugins.losses.spn_guard import SPNGuard
    from basicsr_plugins.negatives import NegativeModels
    from basicsr_plugins.negatives.ingredient import SPNSettings
    from basicsr_plugins.training.settings import LoggerSettings, TrainSettings, ValSettings

    lines = ["# Options", "", "Written by `python tools/write_docs.py` from the code; do not edit.", ""]
    lines += ['Stock keys keep their stock meaning. "ours" means that the default has no published source.', ""]
    for title, schema in (("train", TrainSettings), ("val", ValSettings), ("logger", LoggerSettings)):
        lines += [f"## `{title}` of every recipe", "", table(field_rows(schema))]
    lines += ["## `train.spn_opt` of every recipe that trains `net_g`", "", table(field_rows(SPNSettings))]
    for key, thing in (("negatives", NegativeModels), ("guard", SPNGuard)):
        lines += [f"`{key}`: {first_sentence(thing)}. Arguments: {arguments_line(thing)}.", ""]
    for name, model in sorted(provided("model").items()):
        lines += [f"## {name}", "", f"{first_sentence(model)}.", ""]
        networks = ", ".join(f"`network_{network}`" for network in model.network_names)
        lines += [
            f"Networks: {networks}. Section `train`, beside the above:",
            "",
            table(field_rows(model.Settings, TrainSettings)),
        ]
        for section, schema in getattr(model, "sections", {}).items():
            lines += [f"Section `{section}`:", "", table(field_rows(schema))]
    for name, dataset in sorted(provided("dataset").items()):
        lines += [f"## {name}", "", f"{first_sentence(dataset)}.", "", table(field_rows(dataset.Options))]
    for kind, title in (
        ("degradation", "Degradations"),
        ("loss", "Losses"),
        ("arch", "Networks"),
        ("metric", "Metrics"),
    ):
        lines += [f"## {title}", "", "| name | what | arguments |", "| --- | --- | --- |"]
        for name, thing in sorted(provided(kind).items()):
            lines.append(f"| `{name}` | {first_sentence(thing)} | {arguments_line(thing)} |".replace("||", "\\|\\|"))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def readme() -> str:
    """Return the README with its table renewed."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(
        r"(<!-- basicsr-plugins list --markdown -->\n).*?(<!-- end of the list -->)",
        lambda match: f"{match[1]}{markdown_table()}\n{match[2]}",
        text,
        flags=re.DOTALL,
    )


def main() -> int:
    """Write, or with ``--check`` compare, the generated pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is out of date")
    check = parser.parse_args().check
    basicsr_plugins.register()
    stale = 0
    for path, text in ((ROOT / "docs" / "options.md", options_page()), (ROOT / "README.md", readme())):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale += 1
            print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
            if not check:
                path.write_text(text, encoding="utf-8")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
