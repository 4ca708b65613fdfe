"""Fold adapters into a plain checkpoint, with one constant weight each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from basicsr_plugins.adapters.factors import is_plain_lora, read_factors, read_lora, weight_change
from basicsr_plugins.adapters.fingerprint import fingerprint
from basicsr_plugins.adapters.folder import AdapterFolder
from basicsr_plugins.core.errors import CheckpointError, OptionError

__all__ = ["merge_adapters"]


def merge_adapters(
    state: Mapping[str, torch.Tensor],
    adapters: Mapping[str, AdapterFolder],
    weights: Mapping[str, float],
    net: nn.Module | None = None,
    where: str = "the base",
) -> dict[str, torch.Tensor]:
    """Return the state dict of the base with W0 + sum_k w_k dW_k in place of W0; names and shapes stay.

    Args:
        state: The base's weights.
        adapters: By name.
        weights: One number per adapter that is wanted; adapters without one are left out.
        net: The base network; only needed for adapters that are no plain LoRA.
        where: What the base is, for messages.

    Raises:
        OptionError: A weight names no adapter, or an adapter needs ``net``.
        CheckpointError: An adapter belongs to another base, or does not fit.
    """
    unknown = [name for name in weights if name not in adapters]
    if unknown:
        raise OptionError(f"there is no adapter {unknown[0]!r}; there are {', '.join(adapters)}.")
    found = fingerprint(state)
    merged = {name: tensor.clone() for name, tensor in state.items()}
    if net is not None:
        net.load_state_dict(dict(state))
    for name, weight in weights.items():
        folder = adapters[name]
        folder.check_base(found, where)
        if net is None and not is_plain_lora(folder):
            raise OptionError(
                f"adapter {name!r} is a {folder.method} adapter, which PEFT itself has to merge: give the option file "
                "with its network_g (-opt)."
            )
        factors = read_lora(folder) if net is None else read_factors(folder, net)
        for layer, factor in factors.items():
            key, change = f"{layer}.weight", weight_change(factor)
            if key not in merged or merged[key].shape != change.shape:
                has = tuple(merged[key].shape) if key in merged else "none"
                raise CheckpointError(
                    f"adapter {name!r} ({folder.path}) changes {key} {tuple(change.shape)}; {where} has {has}."
                )
            merged[key] += weight * change.to(merged[key])
            if factor.bias is not None:
                merged[f"{layer}.bias"] += weight * factor.bias.to(merged[key])
    return merged
