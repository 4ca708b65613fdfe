"""The lmdb folders that a process has open: lmdb opens each only once."""

from __future__ import annotations

import os
import weakref
from typing import Any

from basicsr_plugins.core.errors import DataError, DependencyError

__all__ = ["lmdb_package", "open_lmdb"]

#: (process, folder): an environment must not cross a fork. It closes when the last store that reads it goes.
_OPEN: weakref.WeakValueDictionary[tuple[int, str], Any] = weakref.WeakValueDictionary()


def lmdb_package(what: str) -> Any:
    """Return the package lmdb, which ``what`` needs.

    Raises:
        DependencyError: It is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise DependencyError(f"{what} needs the package lmdb: pip install lmdb") from error
    return lmdb


def open_lmdb(root: str) -> Any:
    """Return the environment of an lmdb folder for reading; two data sets of one process may share one.

    Raises:
        DependencyError: lmdb is not installed.
        DataError: It is no lmdb, or something else in this process has it open.
    """
    lmdb = lmdb_package("io_backend type 'lmdb'")
    key = os.getpid(), os.path.realpath(root)
    environment = _OPEN.get(key)
    if environment is None:
        try:
            environment = lmdb.open(root, readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise DataError(f"{root}: the lmdb cannot be opened ({error}).") from error
        _OPEN[key] = environment
    return environment
