"""Where the pictures of a validation go: stock's places, and nothing overwritten, on any number of ranks."""

from __future__ import annotations

import contextlib
import os
from os import path as osp
from typing import Any

from basicsr_plugins.core.unique_names import UniqueNames
from basicsr_plugins.training import distributed

__all__ = ["Pictures"]


class Pictures:
    """The saved pictures of one model: restored images, label maps.

    An image whose name is used already, in its data set or in another one of the same validation, gets the data set's
    name or its own number. With several ranks only all records together tell which names clash: pictures wait in a
    folder aside until ``settle``, and get the names that one rank would have given them.

    Args:
        opt: All options, as BasicSR completed them.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self._label: Any = None
        self._names_of: dict[str, list[str]] = {}
        self._before: list[str] = []
        self._taken = UniqueNames()
        self.dataset_name, self.index, self._place = "", 0, "image"
        self.written: list[str] = []

    def begin(self, dataset_name: str, label: Any) -> None:
        """Start with a data set, of which ``label`` (the iteration, the test's name) is being validated."""
        if label != self._label:
            self._label, self._names_of = label, {}
        self.dataset_name = dataset_name
        self._names_of[dataset_name] = []
        # the data sets before it alone, so that one that is validated again gets the same names
        self._before = list(self._names_of)[: list(self._names_of).index(dataset_name)]
        self._taken = UniqueNames(name for before in self._before for name in self._names_of[before])

    def start_image(self, name: str, index: int) -> None:
        """Go on to the image at ``index`` of the data set."""
        self.index = index
        self.written = []
        self._place = "" if distributed.is_distributed() else self._unique(name, index)

    def save(self, image: Any, what: str = "") -> None:
        """Write a picture (uint8 BGR) that belongs to the image; ``what`` ends its name, as in ``_map``."""
        from basicsr.utils import imwrite

        imwrite(image, self._path(self._place, what) if self._place else self._aside(what))
        self.written.append(what)

    def settle(self, records: list[dict[str, Any]], rank: int, world: int) -> None:
        """Give the pictures of several ranks their names; ``records`` are those of all ranks, in order."""
        if world == 1:
            return
        for record in records:
            name, self.index = self._unique(record["name"], record["index"]), record["index"]
            if record["index"] % world != rank:
                continue
            for what in record["pictures"]:
                path = self._path(name, what)
                os.makedirs(osp.dirname(path), exist_ok=True)
                os.replace(self._aside(what), path)
        with contextlib.suppress(OSError):  # not there, or another rank's pictures still are
            os.rmdir(osp.dirname(self._aside("")))

    def _unique(self, name: str, index: int) -> str:
        folder = "" if self.opt["is_train"] else f"{self.dataset_name}/"
        second = [f"{name}_{self.dataset_name.replace('/', '_')}"] if self._before and not folder else []
        place = self._taken.take(*(folder + choice for choice in (name, *second, f"{name}_{index}")))
        self._names_of[self.dataset_name].append(place)
        return place[len(folder) :]

    def _path(self, name: str, what: str) -> str:
        root = self.opt["path"]["visualization"]
        if self.opt["is_train"]:
            return osp.join(root, name, f"{name}_{self._label}{what}.png")
        ending = self.opt["val"].get("suffix") or self.opt["name"]
        return osp.join(root, self.dataset_name, f"{name}_{ending}{what}.png")

    def _aside(self, what: str) -> str:
        return osp.join(self.opt["path"]["visualization"], ".sharded", f"{self.index}{what}.png")
