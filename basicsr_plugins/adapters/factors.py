"""An adapter as a low-rank change of each layer's weight: dW = B @ A, whatever PEFT method it was trained with."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from basicsr_plugins.adapters.attach import load_adapter
from basicsr_plugins.adapters.folder import AdapterFolder
from basicsr_plugins.core.errors import CheckpointError

__all__ = ["Factor", "factorise", "is_plain_lora", "read_factors", "read_lora", "weight_change"]

#: LoRA configs that change what the plain factors mean: such adapters are read through PEFT itself.
_PLAIN_LORA = {
    "use_dora": False,
    "lora_bias": False,
    "fan_in_fan_out": False,
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "target_parameters": None,
    "layer_replication": None,
    "trainable_token_indices": None,
}


class Factor(NamedTuple):
    """One adapter's change of one layer.

    Args:
        lora_A: (r, in, ...) in the shape of the layer's weight beyond its first dimension.
        lora_B: (o, r), with the adapter's scale in it.
        bias: (o), the change of the bias, or None.
    """

    lora_A: torch.Tensor
    lora_B: torch.Tensor
    bias: torch.Tensor | None = None


def weight_change(factor: Factor) -> torch.Tensor:
    """Return dW = B @ A in the shape of the layer's weight, ``(o, in, ...)``."""
    return (factor.lora_B @ factor.lora_A.flatten(1)).unflatten(1, factor.lora_A.shape[1:])


def read_factors(folder: AdapterFolder, net: nn.Module) -> dict[str, Factor]:
    """Return the change of each adapted layer of ``net``.

    Plain LoRA is read straight from its file. Everything else (VeRA, LoHa, DoRA ...) is merged by PEFT into a copy of
    ``net`` and the difference is factorised, so it needs no code of its own here.

    Args:
        folder: The adapter.
        net: The network that it was trained on, without adapters.

    Raises:
        CheckpointError: A layer is missing, has another shape, or something else than weights and biases of linear and
            convolution layers was trained.
    """
    factors = read_lora(folder) if is_plain_lora(folder) else _read_through_peft(folder, net)
    if not factors:
        raise CheckpointError(f"adapter {folder.name!r} ({folder.path}) changes nothing that can be blended.")
    layers = dict(net.named_modules())
    for name, factor in factors.items():
        layer = layers.get(name)
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            raise CheckpointError(
                f"adapter {folder.name!r} ({folder.path}) was trained on layer {name}, which {type(net).__name__} does "
                f"not have{'' if layer is None else ' as a linear or convolution layer'}."
            )
        expected, given = tuple(layer.weight.shape), (factor.lora_B.shape[0], *factor.lora_A.shape[1:])
        if expected != tuple(given):
            raise CheckpointError(
                f"adapter {folder.name!r} ({folder.path}) was trained on {name} with weights {tuple(given)}, but "
                f"{type(net).__name__} has {expected} there."
            )
    return factors


def factorise(change: torch.Tensor, tolerance: float = 1e-6) -> Factor:
    """Return the ``lora_A`` and ``lora_B`` of the smallest rank whose product is ``change`` to float32 rounding.

    Args:
        change: (o, in, ...), the change of a weight.
        tolerance: Singular values below this fraction of the largest are rounding of the merge and are dropped.
    """
    left, values, right = torch.linalg.svd(change.flatten(1).double(), full_matrices=False)
    rank = max(1, int((values > tolerance * values[0]).sum()))
    lora_A = right[:rank].unflatten(1, change.shape[1:])
    return Factor(lora_A.float(), (left[:, :rank] * values[:rank]).float())


def is_plain_lora(folder: AdapterFolder) -> bool:
    """Tell whether the adapter is nothing but two factors per layer."""
    config = folder.config
    return folder.method == "lora" and all((config.get(k) or plain) == plain for k, plain in _PLAIN_LORA.items())


def read_lora(folder: AdapterFolder) -> dict[str, Factor]:
    """Return the factors of a plain LoRA adapter as its file holds them, without PEFT and without a network."""
    tensors, factors = folder.tensors(), {}
    for key in sorted(tensors):
        name, _, kind = key.rpartition(".lora_")
        if kind == "B.weight":
            continue
        partner = f"{name}.lora_B.weight"
        if kind != "A.weight" or partner not in tensors:
            raise CheckpointError(f"adapter {folder.name!r} ({folder.path}): {key} is not a pair of LoRA factors.")
        lora_A, lora_B = tensors[key].float(), tensors[partner].float().flatten(1)
        if lora_B.shape[1] != lora_A.shape[0]:
            raise CheckpointError(
                f"adapter {folder.name!r} ({folder.path}) adapts the grouped convolution {name}; this cannot be blended"
            )
        alpha, rank = folder.config["lora_alpha"], lora_A.shape[0]
        scale = alpha / math.sqrt(rank) if folder.config.get("use_rslora") else alpha / rank
        factors[name] = Factor(lora_A, lora_B * scale)
    return factors


def _read_through_peft(folder: AdapterFolder, net: nn.Module) -> dict[str, Factor]:
    before = net.state_dict()
    try:  # the difference of two merged weights is only as exact as they are
        merged = load_adapter(_frozen_copy(net).double(), folder).merge().state_dict()
    except TypeError:  # some methods take no float64
        merged = load_adapter(_frozen_copy(net), folder).merge().state_dict()
    changes = {
        name: merged[name].double() - tensor.detach().cpu().double()
        for name, tensor in before.items()
        if tensor.is_floating_point()
    }
    return _group_changes({name: change for name, change in changes.items() if bool(change.any())}, net, folder)


def _frozen_copy(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).cpu().requires_grad_(False)


def _group_changes(changes: Mapping[str, torch.Tensor], net: nn.Module, folder: AdapterFolder) -> dict[str, Factor]:
    layers, factors = dict(net.named_modules()), {}
    for key, change in changes.items():
        name, _, kind = key.rpartition(".")
        layer = layers.get(name)
        if not isinstance(layer, (nn.Linear, nn.Conv2d)) or kind not in ("weight", "bias"):
            raise CheckpointError(
                f"adapter {folder.name!r} ({folder.path}) changes {key}, which is no weight of a linear or convolution "
                "layer and cannot be blended. Train it without bias and modules_to_save."
            )
        if kind == "bias":
            weight = changes.get(f"{name}.weight", torch.zeros(layer.weight.shape, dtype=torch.float64))
            factors[name] = factorise(weight)._replace(bias=change.float())
        elif name not in factors:
            factors[name] = factorise(change)
    return factors
