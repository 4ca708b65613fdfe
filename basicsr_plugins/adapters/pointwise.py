"""1x1 convolutions written as linear layers, for the PEFT methods that do not support convolutions (VeRA ...)."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ChannelLinear", "convolutions_to_linear", "is_pointwise", "linear_to_convolutions", "replace_layer"]


class ChannelLinear(nn.Module):
    """A 1x1 convolution as ``nn.Linear`` over the channels of ``(n, c, h, w)``; shares the convolution's weights."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
        self.linear.weight = nn.Parameter(conv.weight.detach().flatten(1), requires_grad=conv.weight.requires_grad)
        if isinstance(conv.bias, nn.Parameter):
            self.linear.bias = conv.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, c, h, w) to (n, o, h, w)."""
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def convolution(self) -> nn.Conv2d:
        """Return the 1x1 convolution with these weights."""
        layer = self.linear
        conv = nn.Conv2d(layer.in_features, layer.out_features, 1, bias=layer.bias is not None, device="meta")
        weight = layer.weight
        conv.weight = nn.Parameter(weight.detach()[:, :, None, None], requires_grad=weight.requires_grad)
        if layer.bias is not None:
            conv.bias = layer.bias
        return conv


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a layer maps the channels of each position by one matrix: linear, or a 1x1 convolution."""
    if isinstance(layer, nn.Linear):
        return True
    return (
        isinstance(layer, nn.Conv2d)
        and {*layer.kernel_size, *layer.stride, layer.groups} == {1}
        and layer.padding in ((0, 0), "valid", "same")
    )


def convolutions_to_linear(net: nn.Module, names: list[str]) -> list[str]:
    """Replace the named 1x1 convolutions in place and return the names of the linear layers that stand for them."""
    linear = []
    for name in names:
        layer = net.get_submodule(name)
        if isinstance(layer, nn.Conv2d):
            replace_layer(net, name, ChannelLinear(layer).train(net.training))
            name = f"{name}.linear"
        linear.append(name)
    return linear


def linear_to_convolutions(net: nn.Module) -> None:
    """Undo ``convolutions_to_linear`` in place."""
    for name, module in list(net.named_modules()):
        if isinstance(module, ChannelLinear):
            replace_layer(net, name, module.convolution().train(net.training))


def replace_layer(net: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` at the place of that name."""
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, layer)
