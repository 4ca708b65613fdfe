"""The arithmetic of a forward pass by its name in option files."""

from __future__ import annotations

from typing import Optional

import torch

from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["autocast_dtype"]

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_dtype(name: str, where: str) -> Optional[torch.dtype]:
    """Return the autocast type of ``fp32`` (None), ``bf16`` or ``fp16``.

    Raises:
        OptionError: Another name.
    """
    if name not in _DTYPES:
        raise OptionError(f"{where}: {one_of(name, _DTYPES, 'precision')}")
    return _DTYPES[name]
