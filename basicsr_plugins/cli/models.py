"""``basicsr-plugins models [NAME]``: the models that ``restore --model NAME`` knows."""

from __future__ import annotations

import argparse
from typing import Any

from basicsr_plugins.core.errors import OptionError

__all__ = ["add_parser"]

_EXAMPLES = """examples:
  basicsr-plugins models
  basicsr-plugins models nafnet_gopro_w32       # where it comes from, and where to put its file by hand
  basicsr-plugins restore photo.jpg --model nafnet_gopro_w32

Files are kept in $BASICSR_PLUGINS_CACHE, by default ~/.cache/basicsr_plugins.
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    text = "list the models that restore knows by name, and say where one comes from"
    parser = commands.add_parser(
        "models", help=text, description=text, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="show everything about one")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(func=_run)


def builtin_details() -> dict[str, Any]:
    """Return the row of the model that comes with the package."""
    from basicsr_plugins.restore.packaged import BUILTIN, packaged_details

    try:
        return packaged_details()
    except OptionError as error:
        return {
            "name": BUILTIN, "network": "none", "task": "-", "licence": "-", "size": "-", "figure": "-",
            "from": "this package", "cached": "-", "runs": f"no: {error}",
        }  # fmt: skip


def _run(arguments: argparse.Namespace) -> None:
    import json

    from basicsr_plugins.core.errors import one_of
    from basicsr_plugins.hub.cache import cache_folder
    from basicsr_plugins.hub.published import MODELS
    from basicsr_plugins.restore.packaged import BUILTIN

    if arguments.name is not None:
        if arguments.name not in (BUILTIN, *MODELS):
            raise OptionError(one_of(arguments.name, [BUILTIN, *MODELS], "model"))
        details = builtin_details() if arguments.name == BUILTIN else _details(MODELS[arguments.name])
        print(json.dumps(details, indent=2) if arguments.json else _as_list(details))
        return
    rows = [builtin_details(), *map(_details, MODELS.values())]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("name", "network", "task", "licence", "size", "figure", "from", "cached", "runs")
    print(_as_table([_shortened({key: row[key] for key in columns}) for row in rows]))
    print(f"\ncache: {cache_folder()}\n`basicsr-plugins models NAME` shows address, file and folder of one.")


def _details(model: Any) -> dict[str, Any]:
    from basicsr_plugins.hub.cache import held_file, model_folder

    folder = model_folder(model)
    try:
        held = held_file(model)
        cached = "no" if held is None else str(held)
    except OptionError as error:
        held, cached = None, str(error)
    size = model.size if held is None else held.stat().st_size
    runs = "no: " + model.missing if model.missing else "yes"
    if runs == "yes" and held is None and model.is_folder:
        runs = "yes, once its file is put into the folder by hand"
    return {
        "name": model.name, "network": model.network, "task": model.task, "licence": model.licence,
        "size": "unknown" if size is None else f"{size / 1e6:.1f} MB", "figure": model.figure,
        "from": model.repository.rpartition("github.com/")[2], "cached": cached, "runs": runs,
        "arguments": dict(model.arguments), "repository": model.repository, "address": model.address,
        "file": model.file, "folder": str(folder), "sha256": model.sha256 or "unknown", "note": model.note,
    }  # fmt: skip


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    runs = "by hand" if row["runs"].startswith("yes,") else row["runs"].partition(":")[0]
    cached = row["cached"] if row["cached"] in ("no", "-") else "yes"
    return {**row, "licence": row["licence"].rpartition(", ")[2], "cached": cached, "runs": runs}


def _as_table(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _as_list(details: dict[str, Any]) -> str:
    shown = {key: value for key, value in details.items() if value not in ("", {})}
    width = max(map(len, shown))
    return "\n".join(f"{key:{width}}  {_plain(value)}" for key, value in shown.items())


def _plain(value: Any) -> str:
    return ", ".join(f"{key}: {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
