"""``preset: NAME`` in ``network_g``: the constructor arguments of a published variant under one name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, Callable, Optional, TypeVar

from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["with_presets"]

Network = TypeVar("Network", bound=type)


def with_presets(presets: Mapping[str, Mapping[str, Any]]) -> Callable[[Network], Network]:
    """Give a network class a keyword ``preset`` that fills in the arguments of a named variant.

    Arguments that are written out as well win over the preset's, so a preset can be varied.

    Args:
        presets: Name of the variant to constructor arguments. It stays readable as ``TheClass.presets``.

    Example:
        >>> from torch import nn
        >>> @with_presets({"tiny": {"width": 8}})
        ... class Network(nn.Module):
        ...     def __init__(self, width: int = 64) -> None:
        ...         super().__init__()
        ...         self.width = width
        >>> Network(preset="tiny").width  # network_g: {type: Network, preset: tiny}
        8
    """

    def decorate(cls: Network) -> Network:
        # through Any: a constructor is exchanged here, which no type can follow
        changed: Any = cls
        plain_init = changed.__init__
        signature = inspect.signature(plain_init)

        @functools.wraps(plain_init)
        def __init__(self: Any, *args: Any, preset: str | None = None, **kwargs: Any) -> None:
            if preset is not None:
                if preset not in presets:
                    raise OptionError(f"network preset: {one_of(preset, presets, f'preset of {cls.__name__}')}")
                positional = list(signature.parameters)[1 : len(args) + 1]
                kwargs = {**{key: presets[preset][key] for key in presets[preset] if key not in positional}, **kwargs}
            plain_init(self, *args, **kwargs)

        keyword = inspect.Parameter("preset", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Optional[str])
        parameters = list(signature.parameters.values())
        last = len(parameters) - (parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
        parameters.insert(last, keyword)
        vars(__init__)["__signature__"] = signature.replace(parameters=parameters)
        __init__.__annotations__ = {**plain_init.__annotations__, "preset": Optional[str]}
        changed.__init__ = __init__
        changed.presets = dict(presets)
        return cls

    return decorate
