"""A frozen network with the adapters of several tasks, blended anew for each image."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Union

import torch
from torch import nn

from basicsr_plugins.adapters.blend import BlendedLayer, BlendWeights
from basicsr_plugins.adapters.factors import Factor, read_factors
from basicsr_plugins.adapters.fingerprint import fingerprint
from basicsr_plugins.adapters.folder import AdapterFolder, find_adapters
from basicsr_plugins.adapters.modes import check_names
from basicsr_plugins.adapters.pointwise import replace_layer
from basicsr_plugins.core.errors import DataError, OptionError, one_of

__all__ = ["BlendedNetwork"]


class BlendedNetwork(nn.Module):
    """One forward pass of ``net`` with w_1 ... w_K of its adapters, per image or per pixel, differentiable in w.

    Args:
        net: The base network; it is frozen and its adapted layers are wrapped in place.
        adapters: ``name -> AdapterFolder`` (or a folder of adapter folders), or ``name -> {layer: Factor}``.
        where: What ``net`` is, for messages about adapters of another base.
        form: ``auto``, ``merged`` or ``low_rank``; see ``blend.py``.

    Raises:
        CheckpointError: An adapter was trained on another base or does not fit.
        OptionError: Two adapters have one name.

    Example::

        blended = BlendedNetwork(net, "experiments/adapters")
        blended(lq, torch.softmax(estimator(lq), dim=1))
    """

    def __init__(
        self,
        net: nn.Module,
        adapters: Union[str, Mapping[str, Union[AdapterFolder, Mapping[str, Factor]]]],
        where: str = "",
        form: str = "auto",
    ) -> None:
        super().__init__()
        if form not in ("auto", "merged", "low_rank"):
            raise OptionError(f"form: {one_of(form, ('auto', 'merged', 'low_rank'), 'form')}")
        given = adapters if isinstance(adapters, Mapping) else find_adapters(adapters)
        self.names = list(given)
        check_names(self.names)
        factors = self._read(net, given, where or type(net).__name__)
        self.net, self.blend = net, BlendWeights()
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        for layer, base in list(net.named_modules()):
            here = {name: each[layer] for name, each in factors.items() if layer in each}
            if not here:
                continue
            if not isinstance(base, (nn.Linear, nn.Conv2d)):
                raise OptionError(f"adapters: {layer} is a {type(base).__name__}, no linear layer or convolution.")
            replace_layer(net, layer, BlendedLayer(base, here, self.names, self.blend, form))

    @staticmethod
    def _read(net: nn.Module, given: Mapping, where: str) -> dict[str, Mapping[str, Factor]]:
        found = fingerprint(net)
        factors = {}
        for name, adapter in given.items():
            if isinstance(adapter, AdapterFolder):
                adapter.check_base(found, where)
                adapter = read_factors(adapter, net)
            factors[name] = adapter
        return factors

    def forward(self, x: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Restore (n, c, h, w) with (n, K) weights, (1, K) for all images, (n, K, h', w') per pixel, or None: the base.

        Raises:
            DataError: The weights have another number of images or adapters.
        """
        if weights is not None:
            self._check(x, weights)
        self.blend.set(weights, (x.shape[-2], x.shape[-1]))
        try:
            return self.net(x)
        finally:
            self.blend.clear()

    def merged(self, weights: torch.Tensor) -> nn.Module:
        """Return a plain copy of the network with one constant weight vector (K) folded into its weights for good.

        It has the base's own key names and costs exactly what the base costs.
        """
        weights = weights.detach().reshape(1, -1)
        if weights.shape[1] != len(self.names):
            raise DataError(f"{weights.shape[1]} weights for {len(self.names)} adapters: {', '.join(self.names)}.")
        plain = copy.deepcopy(self.net)
        for name, layer in list(plain.named_modules()):
            if isinstance(layer, BlendedLayer):
                weight, bias = layer.merged_weight(weights.to(layer.lora_B.device))
                layer.base.weight.data = weight[0].detach().clone()
                if bias is not None:
                    layer.base.bias = nn.Parameter(bias.detach().reshape(-1).clone(), requires_grad=False)
                replace_layer(plain, name, layer.base)
        return plain

    def layers(self) -> dict[str, BlendedLayer]:
        """Return the blended layers by name."""
        return {name: layer for name, layer in self.net.named_modules() if isinstance(layer, BlendedLayer)}

    def _check(self, x: torch.Tensor, weights: torch.Tensor) -> None:
        if weights.dim() not in (2, 4) or weights.shape[1] != len(self.names):
            raise DataError(
                f"blending: weights of shape {tuple(weights.shape)}; expected (n, {len(self.names)}) or "
                f"(n, {len(self.names)}, h, w), one per adapter: {', '.join(self.names)}."
            )
        if weights.shape[0] not in (1, x.shape[0]) or (weights.dim() == 4 and weights.shape[0] != x.shape[0]):
            raise DataError(
                f"blending: {weights.shape[0]} weight vectors for a batch of {x.shape[0]}; give one per image."
            )
