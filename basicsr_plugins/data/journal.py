"""What a long run has finished in a folder, so that the next one goes on and knows its own files from others'."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from basicsr_plugins.core.atomic import writing_to

__all__ = ["Journal", "stamp"]


def stamp(path: Path) -> list[int]:
    """Return (size, time of change) of a file, by which a changed one is noticed without reading it."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


class Journal:
    """One line of JSON per source; the last line of a name counts.

    A line is written before the first output of a source, and one after its last.

    Args:
        path: The file, in the folder of the outputs.
        how: Whatever the outputs depend on beside the source.
    """

    def __init__(self, path: Path, how: Mapping[str, Any]) -> None:
        self.path = path
        self._how = json.loads(json.dumps(how))
        self._lines: dict[str, dict[str, Any]] = {}
        text = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = path.read_text(encoding="utf-8")
        self._is_cut_off = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a last line that was cut off
                entry = json.loads(line)
                self._lines[entry["source"]] = entry

    def finished(self, source: str, read: Sequence[Path], written: Sequence[Path]) -> Optional[Any]:
        """Return what was noted of a source, if its outputs are there as they were written, from these files so."""
        entry = self._lines.get(source)
        if entry is None or entry.get("how") != self._how or "stamps" not in entry:
            return None
        try:
            there = entry["read"] == [stamp(path) for path in read]
            return entry["result"] if there and entry["stamps"] == [stamp(path) for path in written] else None
        except OSError:
            return None

    def results(self) -> Iterator[tuple[Any, list[list[int]]]]:
        """Yield the result and the stamps of the outputs of each source that any run finished."""
        for entry in self._lines.values():
            if "stamps" in entry and "result" in entry:
                yield entry["result"], entry["stamps"]

    def was_started(self, source: str) -> bool:
        """Whether a run like this one began with a source and did not end it: what is there of it is its own."""
        entry = self._lines.get(source)
        return entry is not None and entry.get("how") == self._how and "stamps" not in entry

    def start(self, source: str) -> None:
        """Note that the outputs of a source are written from now on.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        self._append({"source": source, "how": self._how})

    def finish(self, source: str, read: Sequence[Path], written: Sequence[Path], result: Any) -> None:
        """Note a source as finished, with a result that ``finished`` returns later.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        stamps = {"read": [stamp(path) for path in read], "stamps": [stamp(path) for path in written]}
        self._append({"source": source, "how": self._how, **stamps, "result": result})

    def _append(self, entry: dict[str, Any]) -> None:
        with writing_to(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(("\n" if self._is_cut_off else "") + json.dumps(entry) + "\n")
        self._is_cut_off = False
        self._lines[entry["source"]] = entry
