"""Where compiled networks run as compiled code, and where they do not."""

from __future__ import annotations

import contextlib

import torch

__all__ = ["eagerly"]


def eagerly() -> contextlib.AbstractContextManager[None]:
    """Return a context in which compiled modules run as they were written.

    Images of a validation set differ in size, and each size would be compiled anew. Before torch 2.6 they are.

    Example:
        >>> compiled = torch.compile(lambda x: x + 1, backend="eager")
        >>> with eagerly():
        ...     compiled(torch.ones(1))
        tensor([2.])
    """
    set_stance = getattr(getattr(torch, "compiler", None), "set_stance", None)
    return set_stance("force_eager") if set_stance else contextlib.nullcontext()
