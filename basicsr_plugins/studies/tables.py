"""Rows of figures as CSV files and as text."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from basicsr_plugins.core.errors import DataError

__all__ = ["as_text", "average", "read_csv", "write_csv"]


def average(rows: Iterable[Mapping[str, Any]], keys: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row for every combination of ``keys``: the number of rows averaged (``seeds``) and the means.

    Args:
        rows: The rows; a value that is missing or None is left out of its mean.
        keys: Columns that tell the groups apart.
        columns: Columns to average.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    means = []
    for group, members in groups.items():
        known = {name: [row[name] for row in members if row.get(name) is not None] for name in columns}
        values = {name: sum(found) / len(found) for name, found in known.items() if found}
        means.append({**dict(zip(keys, group)), "seeds": len(members), **values})
    return means


def write_csv(rows: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write rows as CSV, one column for every key that occurs, floats with six digits, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})
    return path


def read_csv(path: str | Path) -> list[dict[str, Any]]:
    """Read what ``write_csv`` wrote; numbers come back as numbers, empty cells as None.

    Raises:
        DataError: There is no such file.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            return [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as an aligned table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_shown(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in cells)


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _number(text: str) -> Any:
    if text == "":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
