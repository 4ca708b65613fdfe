"""Which layers of a network get an adapter."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Union

from torch import nn

from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["PRESETS", "is_plain", "select_targets"]

_logger = logging.getLogger("basicsr")


#: What an adapter can sit on.
Layer = Union[nn.Linear, nn.Conv2d]


def _pointwise(name: str, layer: Layer) -> bool:
    return isinstance(layer, nn.Linear) or set(layer.kernel_size) == {1}


def _attention(name: str, layer: Layer) -> bool:
    return _pointwise(name, layer) and "attn" in name


def _every(name: str, layer: Layer) -> bool:
    return True


#: preset -> does this layer (never a depthwise or grouped one) get an adapter?
PRESETS = {
    "auto": _pointwise,  # of those, only what the network's own ``adapter_layers`` (an expression) lets through
    "pointwise": _pointwise,  # every 1x1 convolution and linear layer: ours, ABAIR names no target layers
    "attention": _attention,  # of those, only what lies in a module called attn
    "all": _every,  # larger convolutions too
}


def is_plain(layer: nn.Module) -> bool:
    """Tell whether PEFT's low-rank convolution repeats this layer's geometry: it copies no dilation or padding mode."""
    if not isinstance(layer, nn.Conv2d) or set(layer.kernel_size) == {1}:
        return True
    return set(layer.dilation) == {1} and layer.padding_mode == "zeros"


def select_targets(net: nn.Module, target: Union[str, Sequence[str]] = "auto") -> list[str]:
    """Return the names of the layers to adapt, in the order of ``net.named_modules()``.

    Depthwise and grouped convolutions are left out of presets with one log line: a low-rank update of such a layer
    costs more parameters than the layer has, and PEFT cannot merge it.

    Args:
        net: Any network made of ``nn.Linear`` and ``nn.Conv2d``.
        target: A preset (``auto``, ``pointwise``, ``attention``, ``all``), or a regular expression that has to match a
            layer's whole name, or a list of names and expressions.

    Raises:
        OptionError: Nothing matches, or an expression names a layer that cannot carry an adapter.

    Example:
        >>> select_targets(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1)))
        ['2']
    """
    layers = _adaptable(net)
    if not layers:
        raise OptionError(f"peft_opt.target: {type(net).__name__} has no nn.Linear or nn.Conv2d that could be adapted.")
    if isinstance(target, str) and target in PRESETS:
        return _from_preset(net, layers, target)
    patterns = [target] if isinstance(target, str) else list(target)
    chosen: set[str] = set()
    for pattern in patterns:
        found = _matching(pattern, layers)
        if not found:
            hint = one_of(pattern, [*PRESETS, *layers], "target preset or layer")
            raise OptionError(f"peft_opt.target: {pattern!r} matches no layer of {type(net).__name__}; {hint}")
        chosen.update(found)
    for name in chosen:
        if getattr(layers[name], "groups", 1) > 1:
            raise OptionError(
                f"peft_opt.target: {name} is a grouped convolution (groups={layers[name].groups}); a low-rank adapter "
                "there has more parameters than the layer and cannot be merged. Leave it out of the expression."
            )
        if name in _unreachable(net):
            raise OptionError(f"peft_opt.target: {name} is called by nn.MultiheadAttention without its forward().")
    return [name for name in layers if name in chosen]


def _adaptable(net: nn.Module) -> dict[str, Layer]:
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}


def _from_preset(net: nn.Module, layers: dict[str, Layer], preset: str) -> list[str]:
    wanted = [name for name, layer in layers.items() if PRESETS[preset](name, layer)]
    if preset == "auto":
        allowed = re.compile(getattr(net, "adapter_layers", ".*"))
        wanted = [name for name in wanted if allowed.fullmatch(name)]
    hidden = _unreachable(net)
    grouped = [name for name in layers if getattr(layers[name], "groups", 1) > 1]
    unusual = [name for name in wanted if not is_plain(layers[name]) and name not in grouped]
    chosen = [name for name in wanted if name not in {*hidden, *grouped, *unusual}]
    for left_out, why in (
        (grouped, "depthwise or grouped convolutions"),
        (unusual, "dilated or not zero-padded convolutions, which PEFT does not repeat"),
        ([name for name in wanted if name in hidden], "layers inside nn.MultiheadAttention"),
    ):
        if left_out:
            _logger.info("Adapters: %d %s left out (%s ...).", len(left_out), why, left_out[0])
    if not chosen:
        raise OptionError(
            f"peft_opt.target: preset {preset!r} selects no layer of {type(net).__name__}. "
            f"Give another preset ({', '.join(PRESETS)}) or a regular expression over its layer names."
        )
    return chosen


def _matching(pattern: str, layers: dict[str, Layer]) -> list[str]:
    if pattern in layers:
        return [pattern]
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise OptionError(f"peft_opt.target: {pattern!r} is not a regular expression ({error}).") from None
    return [name for name in layers if expression.fullmatch(name)]


def _unreachable(net: nn.Module) -> set[str]:
    """Names of layers whose weights their parent reads without calling them."""
    return {
        f"{name}.out_proj" if name else "out_proj"
        for name, module in net.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }
