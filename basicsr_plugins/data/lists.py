"""Lists of image files: one reader for meta files, pair lists and the list inside an lmdb."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from basicsr_plugins.core.errors import DataError

__all__ = ["find_in_line", "find_listed", "list_lines", "list_text", "listed_name", "split_pair"]

#: Byte order marks and what they announce; PowerShell's ``>`` writes the second.
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
#: What BasicSR's tools write behind a name: "(h,w,c)", and in an lmdb the level of compression.
_LEVEL = re.compile(r"(?<=\.\w{3})\s+\d+$")
_SHAPE = re.compile(r"\s+\(\s*(\d+)\s*,\s*(\d+)\s*(?:,\s*\d+\s*)?\)(?:\s+\d+)?$")


def list_text(path: Path, where: str) -> str:
    """Return the text of a list file, whatever its byte order mark.

    Raises:
        DataError: It is missing or no text.
    """
    if not path.is_file():
        raise DataError(f"{where}: there is no file {path}.")
    try:
        data = path.read_bytes()
        encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
        return data.decode(encoding)
    except OSError as error:
        raise DataError(f"{where}: {path} cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: {path} is no text in UTF-8 ({error}); save it as UTF-8.") from error


def list_lines(path: Path, where: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of a list file without empty lines and ``#`` comments.

    Raises:
        DataError: It is missing or no text.
    """
    for number, line in enumerate(list_text(path, where).splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield number, text


def listed_name(line: str) -> tuple[str, Optional[tuple[int, int]]]:
    """Return the name in a line of a meta file, and (h, w) where the line gives it.

    Example:
        >>> listed_name("my photo.png (140,150,3)")
        ('my photo.png', (140, 150))
    """
    match = _SHAPE.search(line)
    if match is None:
        return _unquoted(_LEVEL.sub("", line)), None
    return _unquoted(line[: match.start()]), (int(match.group(1)), int(match.group(2)))


def find_listed(root: Path, name: str) -> Optional[Path]:
    """Return the file that a list names: below ``root``, also with a leading slash or backslashes, else absolute."""
    for written in dict.fromkeys((name, name.replace("\\", "/"))):
        absolute = [Path(written)] if os.path.isabs(written) else []
        for path in (root / written.lstrip("/"), *absolute):
            if path.is_file():
                return path
    return None


def find_in_line(root: Path, line: str) -> Optional[Path]:
    """Return the file that a line of a meta file names, which may hold spaces; what follows the name is passed over."""
    tried = [listed_name(line)[0], _unquoted(line)]
    spaces = [match.start() for match in re.finditer(r"\s+", line)]
    tried += [_unquoted(line[:end]) for end in reversed(spaces)]
    return next((path for name in dict.fromkeys(tried) if (path := find_listed(root, name)) is not None), None)


def split_pair(line: str, first_root: Path, second_root: Path) -> Optional[tuple[str, str]]:
    """Return the two names in a line of a pair list, None where there is one column.

    Columns are parted by a tab, else by the space that leaves a file on either side; names may stand in quotes.
    What follows the second name is passed over.
    """
    quoted = re.findall(r'"[^"]*"|\S+', line) if '"' in line else []
    columns = quoted or [part.strip() for part in line.split("\t") if part.strip()]
    if len(columns) >= 2:
        return _unquoted(columns[0]), _unquoted(columns[1])
    words = line.split()
    if len(words) < 2:
        return None
    if len(words) > 2:
        spans = [match.span() for match in re.finditer(r"\S+", line)]
        for end in range(len(spans), 1, -1):
            for cut in range(1, end):
                first, second = line[: spans[cut - 1][1]], line[spans[cut][0] : spans[end - 1][1]]
                if find_listed(first_root, first) is not None and find_listed(second_root, second) is not None:
                    return first, second
    return words[0], words[1]


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text
