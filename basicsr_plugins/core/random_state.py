"""The state of every random generator of a process, in plain containers that load with ``weights_only=True``."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

__all__ = ["OwnStream", "get_random_state", "preserved_random_state", "set_random_state"]


def get_random_state() -> dict[str, Any]:
    """Return the states of python's, numpy's, torch's and CUDA's global generators."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - stock data sets draw from it
    version, internal, gauss = random.getstate()
    return {
        "python": {"version": version, "internal": list(internal), "gauss": gauss},
        "numpy": {
            "name": name,
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what ``get_random_state`` returned; CUDA states are used as far as there are devices."""
    saved = state["python"]
    random.setstate((saved["version"], tuple(saved["internal"]), saved["gauss"]))
    saved = state["numpy"]
    keys = saved["keys"].cpu().numpy().astype(np.uint32)
    np.random.set_state((saved["name"], keys, saved["position"], saved["has_gauss"], saved["cached"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available():
        for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state.cpu(), device)


class OwnStream:
    """Random numbers of the training step that the data loader cannot disturb.

    A loader draws from the same global generators (its base seed, and everything in a process without workers), once
    more after a resume than without. Inside ``with stream:`` python's and torch's generators run on a stream of their
    own, which goes on where the last step left it and is saved and restored by itself.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None

    def __enter__(self) -> OwnStream:
        self._outside = (random.getstate(), torch.get_rng_state())
        if self.state is not None:
            saved = self.state["python"]
            random.setstate((saved["version"], tuple(saved["internal"]), saved["gauss"]))
            torch.set_rng_state(self.state["torch"].cpu())
        return self

    def __exit__(self, *_: object) -> None:
        version, internal, gauss = random.getstate()
        self.state = {
            "python": {"version": version, "internal": list(internal), "gauss": gauss},
            "torch": torch.get_rng_state(),
        }
        random.setstate(self._outside[0])
        torch.set_rng_state(self._outside[1])


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave every generator as it was, whatever is drawn inside."""
    state = get_random_state()
    try:
        yield
    finally:
        set_random_state(state)
