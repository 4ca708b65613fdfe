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
        folder, slash, file = wanted[-1].rpartition("/")
        stem, dot, ending = file.rpartition(".")
        stem, ending = (stem, dot + ending) if stem else (file, "")
        number = 2
        while not self._is_free(f"{folder}{slash}{stem}_{number}{ending}"):
            number += 1
        return self._note(f"{folder}{slash}{stem}_{number}{ending}")

    def _is_free(self, name: str) -> bool:
        key = _key(name)
        return key not in self._files and key not in self._folders and self._files.isdisjoint(_folders(key))

    def _note(self, name: str) -> str:
        key = _key(name)
        self._files.add(key)
        self._folders.update(_folders(key))
        return name


def _key(name: str) -> str:
    # macOS takes the two ways to write an accent for one name, and with Windows upper and lower case
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _folders(key: str) -> list[str]:
    parts = key.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
