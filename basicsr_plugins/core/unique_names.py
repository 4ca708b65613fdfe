"""Names of files that are written together, none of which overwrites another on any file system."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

__all__ = ["UniqueNames"]


class UniqueNames:
    """Hand out relative paths that differ from each other, also where upper and lower case are the same.

    The same questions in the same order get the same answers. A name may not be a folder of another one.

    Args:
        taken: Names that are in use already.

    Example:
        >>> names = UniqueNames()
        >>> names.take("a.png"), names.take("A.png", "A.jpg.png"), names.take("a.png")
        ('a.png', 'A.jpg.png', 'a_2.png')
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        for name in taken:
            self._note(name)

    def take(self, *wanted: str) -> str:
        """Return the first of the wanted names that is free, else the last one with the first free number."""
        for name in wanted:
            if self._is_free(name):
                return self._note(name)
        name, number = wanted[-1], 2
        while not self._is_free(_numbered(name, self._part_in_the_way(name), number)):
            number += 1
        return self._note(_numbered(name, self._part_in_the_way(name), number))

    def _part_in_the_way(self, name: str) -> int:
        """Return which part of a path is a file already; else the last one."""
        folders = _folders(_key(name))
        return next((place for place, folder in enumerate(folders) if folder in self._files), len(folders))

    def _is_free(self, name: str) -> bool:
        key = _key(name)
        return key not in self._files and key not in self._folders and self._files.isdisjoint(_folders(key))

    def _note(self, name: str) -> str:
        key = _key(name)
        self._files.add(key)
        self._folders.update(_folders(key))
        return name


def _numbered(name: str, place: int, number: int) -> str:
    parts = name.split("/")
    stem, dot, ending = parts[place].rpartition(".")
    parts[place] = f"{stem}_{number}{dot}{ending}" if stem else f"{parts[place]}_{number}"
    return "/".join(parts)


def _key(name: str) -> str:
    # macOS takes the two ways to write an accent for one name, and with Windows upper and lower case
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _folders(key: str) -> list[str]:
    parts = key.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
