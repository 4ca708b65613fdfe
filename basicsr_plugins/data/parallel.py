"""Work on many files at once, in order, without holding more results than are being worked on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional, TypeVar

from basicsr_plugins.core.errors import OptionError

__all__ = ["in_parallel", "worker_count"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def worker_count(workers: Optional[int], where: str = "--workers") -> int:
    """Return how many threads work: what was asked for, else one per core and at most 8.

    Raises:
        OptionError: Less than one.
    """
    if workers is None:
        return min(8, os.cpu_count() or 1)
    if workers < 1:
        raise OptionError(f"{where}: must be 1 or more, got {workers}.")
    return workers


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` of each item, in order.

    Threads do: OpenCV, zlib and SHA-256 let go of the interpreter while they work. Items are taken two per worker
    ahead, so that results do not pile up. An interruption ends what is running and starts nothing more.

    Args:
        function: Called in threads.
        items: Taken as they are needed.
        workers: 1 or more.

    Example:
        >>> list(in_parallel(abs, [-1, -2, 3], workers=2))
        [1, 2, 3]
    """
    pool = ThreadPoolExecutor(max_workers=workers)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
