"""Signals that ask a training to stop: it ends between two iterations, with a complete checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import weakref
from typing import Any, Optional

from basicsr_plugins.training import distributed

__all__ = ["SIGNALS", "StopSignals"]

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
#: Ctrl-C, a scheduler's or the system's end, Slurm's warning, a closed terminal; where the system has them.
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class StopSignals:
    """Remembers the first signal until the model is between two iterations; a second one ends the process at once.

    ``with stop:`` marks what must not be cut off: an iteration, a validation, a save. Where a signal came, leaving the
    block calls the model's ``stop_training``. Loader processes are forked later and ignore what is sent to the whole
    process group: the training outlives a Ctrl-C, and so must they.

    A signal finds its usual handler where no training runs: before the first iteration, after the last one, and once
    the model is gone. Handlers that a program has set itself stay, and so does an ignored signal (``nohup``).

    Args:
        model: What trains; its ``is_running`` is asked for, and ``stop_training(number)`` is called.
    """

    def __init__(self, model: Any) -> None:
        self._model = weakref.ref(model)
        self._process = os.getpid()
        self._before: dict[int, Any] = {}
        self._busy = 0
        self._stopping = False
        #: The signal that came, and the one that all ranks have agreed on.
        self.received: Optional[int] = None
        self.agreed: Optional[int] = None

    def install(self) -> None:
        """Take the place of the default handlers, and of those of an earlier training of this process."""
        if threading.current_thread() is not threading.main_thread():
            return  # python allows it there alone
        for number in SIGNALS:
            before: Any = signal.getsignal(number)
            earlier = getattr(before, "__self__", None)
            if isinstance(earlier, StopSignals):
                before = earlier._before[number]
            if before in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = before
                signal.signal(number, self._handle)

    def flags(self) -> list[bool]:
        """Return for each of ``SIGNALS`` whether it came, for the exchange between the ranks."""
        return [number == self.received for number in SIGNALS]

    def agree(self, flags: list[bool]) -> None:
        """Take the flags of all ranks."""
        self.agreed = next((number for number, flag in zip(SIGNALS, flags) if flag), self.agreed)

    def __enter__(self) -> StopSignals:
        self._busy += 1
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._busy -= 1
        if kind is None and not self._busy:
            self._act()

    def _act(self) -> None:
        number = self.agreed if distributed.is_distributed() else self.received
        model = self._model()
        if number is not None and not self._stopping and model is not None and model.is_running:
            self._stopping = True
            model.stop_training(number)

    def _handle(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:
            return  # a loader's process, which its parent ends
        model = self._model()
        if model is None or not model.is_running:
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)
            return
        children = multiprocessing.active_children()
        if self.received is not None:
            for child in children:
                child.kill()
            os._exit(128 + number)
        self.received = number
        # not the logger, in which this may be; the write itself cannot be interrupted
        os.write(2, f"\n{signal.Signals(number).name}: saving a checkpoint; once more ends at once.\n".encode())
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, _nothing)  # torch raises in the middle of things where a worker dies
        if children and not self._busy:
            self._act()  # the loader's processes may be gone, and the next batch never come


def _nothing(number: int, frame: Any) -> None:
    """Take a signal that does not matter any more."""
