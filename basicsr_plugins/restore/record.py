"""What was restored into a folder, from what and how: finished outputs are skipped, others' files never replaced."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from basicsr_plugins.core.atomic import writing_to

__all__ = ["RECORD", "Record"]

RECORD = ".basicsr_plugins_restored.jsonl"


class Record:
    """One line of JSON per output, in its folder; the last line of a name counts.

    Args:
        how: Whatever the pixels depend on beside the photograph: model, precision, tiles ...
    """

    def __init__(self, how: dict[str, Any]) -> None:
        self.how = how
        self._folders: dict[Path, dict[str, Any]] = {}

    def is_finished(self, source: Path, target: Path) -> bool:
        """Whether the output is there as it was written, from this very photograph and in this way."""
        line = self._of(target.parent).get(target.name)
        return line is not None and target.is_file() and line == self._line(source, target)

    def note(self, source: Path, target: Path) -> None:
        """Remember an output that was just written.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        line = self._line(source, target)
        path = target.parent / RECORD
        with writing_to(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._of(target.parent)[target.name] = line

    def _line(self, source: Path, target: Path) -> dict[str, Any]:
        return {
            "output": target.name,
            "written": _stamp(target),
            "input": source.name,
            "read": _stamp(source),
            "how": json.loads(json.dumps(self.how)),
        }

    def _of(self, folder: Path) -> dict[str, Any]:
        if folder not in self._folders:
            lines: dict[str, Any] = {}
            text = ""
            with contextlib.suppress(OSError, UnicodeDecodeError):
                text = (folder / RECORD).read_text(encoding="utf-8")
            for line in text.splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a last line that was cut off
                    entry = json.loads(line)
                    lines[entry["output"]] = entry
            self._folders[folder] = lines
        return self._folders[folder]


def _stamp(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]
