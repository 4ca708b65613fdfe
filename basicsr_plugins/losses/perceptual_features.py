"""The frozen features in which the contrastive losses measure distance: VGG layers by name, pixels, or any module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, Union, cast

import torch
from torch import Tensor, nn

from basicsr_plugins.core.errors import DataError, OptionError, one_of
from basicsr_plugins.core.memory_format import channels_last
from basicsr_plugins.core.options import check_call
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.losses.vgg_weights import PLANS, vgg_state_dict

__all__ = ["PixelFeatures", "UserFeatures", "VGGFeatures", "build_features", "layer_names"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def layer_names(backbone: str) -> list[str]:
    """Return the names of a VGG's layers in order: ``conv1_1``, ``relu1_1``, ``conv1_2``, ..., ``pool5``.

    Raises:
        OptionError: There is no such VGG.
    """
    if backbone not in PLANS:
        raise OptionError(f"features: {one_of(backbone, [*PLANS, 'pixel'], 'backbone')}")
    names = []
    for block, count in enumerate(PLANS[backbone], start=1):
        for index in range(1, count + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        names.append(f"pool{block}")
    return names


class VGGFeatures(nn.Module):
    """Inner layers of a frozen VGG (Simonyan and Zisserman, ICLR 2015), cut off after the last layer asked for.

    It stays in eval mode and in float32, under automatic mixed precision too: sums over its activations overflow in
    half precision.

    Args:
        backbone: ``vgg11``, ``vgg13``, ``vgg16`` or ``vgg19``.
        layers: Names as in ``relu3_3``.
        weights: ``auto`` (BasicSR's folder, else torchvision's), ``torchvision``, ``random``, or a path.
        range_norm: The images lie in [-1, 1]; False: in [0, 1]. BasicSR's name.
        use_input_norm: Normalise by ImageNet's mean and standard deviation. BasicSR's name.

    Shapes:
        images ``(n, 3, h, w)``; a feature ``(n, c, h', w')``.

    Raises:
        OptionError: Unknown backbone or layer.
        DependencyError: The weights cannot be had.
        DataError: At a call, images without three channels or too small for the layers.

    Example:
        >>> features = VGGFeatures("vgg16", ["relu1_2"], weights="random")
        >>> features(torch.rand(1, 3, 16, 16))["relu1_2"].shape
        torch.Size([1, 64, 16, 16])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = "vgg16",
        layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3"),
        weights: str = "auto",
        range_norm: bool = False,
        use_input_norm: bool = True,
    ) -> None:
        super().__init__()
        names = layer_names(backbone)
        if not layers:
            raise OptionError(f"layers: at least one layer of {backbone} is needed, for example relu3_3.")
        for layer in layers:
            if layer not in names:
                raise OptionError(f"layers: {one_of(layer, names, f'layer of {backbone}')}")
        self.layers = sorted(set(layers), key=names.index)
        self.range_norm = range_norm
        self.use_input_norm = use_input_norm
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.net = _trunk(names[: names.index(self.layers[-1]) + 1], self.layers, vgg_state_dict(backbone, weights))
        # convolutions of a wide network on small images: about a third faster so, on CPU and on tensor cores
        channels_last(self.net)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> VGGFeatures:
        """Stay in eval mode: the features are a fixed yardstick."""
        return super().train(False)

    def stream(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(layer, feature)`` one by one, so that a caller who needs no graph never holds two of them."""
        side = 2 ** sum(name.startswith("pool") for name, _ in self.net.named_children())
        if images.dim() != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < side:
            raise DataError(
                f"a VGG up to {self.layers[-1]} takes images (n, 3, h, w) of at least {side} x {side} pixels, got "
                f"{tuple(images.shape)}. For other images: features: pixel, or a module of yours."
            )
        x = images.to(self.mean.dtype)
        if self.range_norm:
            x = (x + 1) / 2
        if self.use_input_norm:
            x = (x - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        for name, layer in self.net.named_children():
            x = layer(x)
            if name in self.layers:
                yield name, x

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the feature of each layer by name."""
        return dict(self.stream(images))


class PixelFeatures(nn.Module):
    """The image itself as its only feature: distances are taken between pixels.

    Args:
        range_norm: The images lie in [-1, 1]; they are brought to [0, 1], so that loss weights mean the same.
    """

    def __init__(self, range_norm: bool = False) -> None:
        super().__init__()
        self.range_norm = range_norm
        self.layers = ["pixel"]

    def stream(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the image as layer ``pixel``."""
        yield "pixel", (images + 1) / 2 if self.range_norm else images

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the image as layer ``pixel``."""
        return dict(self.stream(images))


class UserFeatures(nn.Module):
    """Features of any module that maps images to a tensor, a sequence of tensors or a dict of tensors.

    The module is frozen and held in eval mode. A sequence gets the names ``0``, ``1``, ...; a lone tensor ``0``.

    Args:
        module: The extractor.
        layers: The names to use; every returned feature if left out.
        range_norm: The images lie in [-1, 1]; the module gets them in [0, 1].

    Raises:
        OptionError: A layer that the module does not return, found at the first call.
    """

    def __init__(self, module: nn.Module, layers: Optional[Sequence[str]] = None, range_norm: bool = False) -> None:
        super().__init__()
        self.module = module.requires_grad_(False).eval()
        self.layers = [str(layer) for layer in layers] if layers else []
        self.range_norm = range_norm

    def train(self, mode: bool = True) -> UserFeatures:
        """Stay in eval mode: the features are a fixed yardstick."""
        return super().train(False)

    def stream(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the wanted features, in the module's order."""
        found = self.module((images + 1) / 2 if self.range_norm else images)
        if isinstance(found, Tensor):
            named = {"0": found}
        elif isinstance(found, Mapping):
            named = {str(name): feature for name, feature in found.items()}
        else:
            named = {str(index): feature for index, feature in enumerate(found)}
        for layer in self.layers:
            if layer not in named:
                raise OptionError(f"layers: {one_of(layer, named, 'feature of ' + type(self.module).__name__)}")
        for name, feature in named.items():
            if not self.layers or name in self.layers:
                yield name, feature

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the wanted features by name."""
        return dict(self.stream(images))


def build_features(
    features: Union[str, Mapping[str, Any], nn.Module],
    layers: Optional[Sequence[str]],
    weights: str = "auto",
    range_norm: bool = False,
    use_input_norm: bool = True,
) -> nn.Module:
    """Return the extractor that an option names.

    Args:
        features: ``vgg16`` and so on, ``pixel``, a module, or ``{type: SomeArch, ...}`` as in ``network_g``.
        layers: Layer names; None takes all that a module returns.
        weights: See ``VGGFeatures``; of no meaning for the others.
        range_norm: The images lie in [-1, 1].
        use_input_norm: For a VGG, see there.

    Raises:
        OptionError: Unknown backbone, layer or type.
        DependencyError: The VGG's weights cannot be had.
    """
    if isinstance(features, nn.Module):
        return UserFeatures(features, layers, range_norm)
    if isinstance(features, Mapping):
        return UserFeatures(_build_arch(features), layers, range_norm)
    if not isinstance(features, str):
        raise OptionError(f"features: expected a name, a mapping with 'type' or a module, got {features!r}.")
    if features == "pixel":
        if layers and list(layers) != ["pixel"]:
            raise OptionError(f"layers: {one_of(next(iter(layers)), ['pixel'], 'layer of features: pixel')}")
        return PixelFeatures(range_norm)
    return VGGFeatures(features, layers or [], weights, range_norm, use_input_norm)


def _build_arch(given: Mapping[str, Any]) -> nn.Module:
    options = dict(given)
    if "type" not in options:
        raise OptionError("features.type: this option is required: the name of a network.")
    network = lookup("arch", options.pop("type"), "features.type")
    return network(**check_call(network, options, "features"))


def _trunk(names: Sequence[str], tapped: Sequence[str], state: Optional[Mapping[str, Tensor]]) -> nn.Sequential:
    """Build the layers up to the last one; ``state`` has torchvision's keys (``0.weight``, ...), or is None: random."""
    trunk = nn.Sequential()
    channels, width = 3, 64
    for index, name in enumerate(names):
        if name.startswith("conv"):
            conv = nn.Conv2d(channels, width, 3, padding=1)
            if state is None:  # torchvision's own initialisation of a VGG
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, conv.bias))
            else:
                conv.weight.data.copy_(state[f"{index}.weight"])
                cast(Tensor, conv.bias).data.copy_(state[f"{index}.bias"])
            trunk.add_module(name, conv)
            channels = width
        elif name.startswith("relu"):
            # in place saves a third of the memory, except where it would overwrite a feature that was asked for
            trunk.add_module(name, nn.ReLU(inplace=names[index - 1] not in tapped))
        else:
            trunk.add_module(name, nn.MaxPool2d(2, 2))
            width = min(512, width * 2)
    return trunk
