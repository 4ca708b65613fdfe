"""One layer, several adapters, one weight per adapter and image: y = W0 x + sum_k w_k (alpha/r) B_k A_k x, exactly.

Two forms give the same result and the cheaper one is taken per call. ``merged`` forms each image's own weight
W0 + B diag(w) A and applies it by a batched matrix product: a 1x1 convolution or a linear layer then costs what the
base layer costs, whatever the number of adapters. ``low_rank`` applies all A as one layer and all B as another, of rank
K r; it is cheaper where an image has few positions, and the only one for weights that differ from pixel to pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional, Union

import torch
from torch import nn
from torch.nn import functional

from basicsr_plugins.adapters.factors import Factor
from basicsr_plugins.adapters.pointwise import is_pointwise
from basicsr_plugins.core.errors import DataError, OptionError, TrainingError

__all__ = ["BlendedLayer", "BlendWeights", "cheaper_form"]


class BlendWeights:
    """The weights of the forward pass that is running; every ``BlendedLayer`` of a network reads the same object."""

    def __init__(self) -> None:
        self.active = False
        self.values: torch.Tensor | None = None
        self.image_size = (0, 0)
        self._resized: dict[tuple[int, int], torch.Tensor] = {}

    def set(self, values: torch.Tensor | None, image_size: tuple[int, int]) -> None:
        """Begin a forward pass with (n, K), (1, K), (n, K, h, w) or no weights."""
        self.active, self.values, self.image_size, self._resized = True, values, image_size, {}

    def clear(self) -> None:
        """End the forward pass."""
        self.active, self.values, self._resized = False, None, {}

    def at(self, height: int, width: int) -> torch.Tensor:
        """Return the spatial weights at a layer's resolution, (n, K, height, width); each size is computed once."""
        size, values = (height, width), self.values
        if values is None:
            raise TrainingError("spatial blending: no forward pass with weights is running.")
        if size not in self._resized:
            if values.shape[-2] >= height and values.shape[-1] >= width:
                values = functional.adaptive_avg_pool2d(values, size)
            else:
                values = functional.interpolate(values, size, mode="bilinear", align_corners=False)
            self._resized[size] = values
        return self._resized[size]

    def at_tokens(self, count: int) -> torch.Tensor:
        """Return the spatial weights of ``count`` raster-ordered tokens, (n, K, count)."""
        height, width = self.image_size
        for step in (1, 2, 4, 8, 16, 32, 64):
            rows, columns = -(-height // step), -(-width // step)
            if rows * columns == count:
                return self.at(rows, columns).flatten(2)
        raise OptionError(
            f"spatial blending: a linear layer sees {count} tokens, which is no {height} x {width} image at any power "
            "of two; use weights per image for this network."
        )


def cheaper_form(positions: int, inputs: int, outputs: int) -> str:
    """Return ``merged`` or ``low_rank``, whichever adds fewer multiplications per image.

    Forming W0 + B diag(w) A costs outputs * inputs * R, applying A and B costs positions * R * (inputs + outputs).

    Args:
        positions: Output positions per image (1 for a vector).
        inputs: Input channels times kernel area.
        outputs: Output channels.
    """
    return "merged" if outputs * inputs <= positions * (inputs + outputs) else "low_rank"


class BlendedLayer(nn.Module):
    """A linear layer or convolution with the adapters of several tasks.

    Args:
        base: The layer itself, frozen; it stays as it is and is used alone where there are no weights.
        factors: The change that each adapter makes here, by adapter; adapters that leave this layer alone are absent.
        names: All adapters, in the order of the weights.
        weights: The object that holds the weights of the running forward pass.
        form: ``merged``, ``low_rank`` or ``auto`` (the cheaper one).
    """

    lora_A: torch.Tensor
    lora_B: torch.Tensor
    owner: torch.Tensor
    shifts: Optional[torch.Tensor]

    def __init__(
        self,
        base: Union[nn.Linear, nn.Conv2d],
        factors: Mapping[str, Factor],
        names: Sequence[str],
        weights: BlendWeights,
        form: str = "auto",
    ) -> None:
        super().__init__()
        self.base, self.form, self.blend = base, form, weights
        present = [(index, factors[name]) for index, name in enumerate(names) if name in factors]
        owner = [index for index, factor in present for _ in range(factor.lora_A.shape[0])]
        lora_A = torch.cat([factor.lora_A for _, factor in present]).to(base.weight)
        lora_B = torch.cat([factor.lora_B for _, factor in present], dim=1).to(base.weight)
        shifts = torch.zeros(len(names), base.weight.shape[0])
        for index, factor in present:
            if factor.bias is not None:
                shifts[index] = factor.bias
        self.register_buffer("lora_A", lora_A, persistent=False)
        self.register_buffer("lora_B", lora_B, persistent=False)
        self.register_buffer("owner", torch.tensor(owner, device=base.weight.device), persistent=False)
        self.register_buffer("shifts", shifts.to(base.weight) if bool(shifts.any()) else None, persistent=False)

    def extra_repr(self) -> str:
        """Show the stacked rank."""
        return f"rank={self.lora_A.shape[0]}, form={self.form}"

    def merged_weight(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return each image's own weight (n, o, in, ...) and bias (n, o) or (o) or None, for (n, K) weights."""
        scaled = self.lora_B * weights.to(self.lora_B.dtype)[:, self.owner].unsqueeze(1)
        change = scaled @ self.lora_A.flatten(1)
        weight = self.base.weight + change.unflatten(2, self.lora_A.shape[1:])
        bias: Optional[torch.Tensor] = self.base.bias
        if self.shifts is not None:
            shift = weights.to(self.shifts.dtype) @ self.shifts
            bias = shift if bias is None else bias + shift
        return weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map what the base layer maps, with the weights of the running forward pass."""
        if not self.blend.active:
            raise TrainingError(
                "a blended layer ran outside BlendedNetwork.forward(). Call the BlendedNetwork itself, and switch "
                "activation checkpointing off: it calls layers again during the backward pass."
            )
        weights = self.blend.values
        if weights is None:
            return self.base(x)
        if weights.dim() == 4:
            return self._spatial(x, weights)
        if weights.shape[0] == 1:  # one weight for all images: the base layer's own kernel does the work
            weight, bias = self.merged_weight(weights)
            return self._run(x, weight[0], bias if bias is None else bias.reshape(-1))
        if isinstance(self.base, nn.Linear):
            return self._linear_per_image(x, weights)
        return self._conv_per_image(self.base, x, weights)

    def _run(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if isinstance(self.base, nn.Linear):
            return functional.linear(x, weight, bias)
        return self.base._conv_forward(x, weight, bias)

    def _form_for(self, positions: int) -> str:
        if self.form != "auto":
            return self.form
        return cheaper_form(positions, self.lora_A[0].numel(), self.lora_B.shape[0])

    def _linear_per_image(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        n, channels = weights.shape[0], x.shape[-1]
        if x.shape[0] % n:
            raise DataError(f"blending: {n} weight vectors for a batch of {x.shape[0]}; give one per image.")
        tokens = x.reshape(n, -1, channels)  # windows of one image lie next to each other in the batch
        if self._form_for(tokens.shape[1]) == "merged":
            weight, bias = self.merged_weight(weights)
            y = tokens @ weight.transpose(1, 2)
            y = y if bias is None else y + (bias.unsqueeze(1) if bias.dim() == 2 else bias)
        else:
            columns = weights.to(x.dtype)[:, None, self.owner]
            y = functional.linear(tokens, self.base.weight, self.base.bias)
            y = y + functional.linear(functional.linear(tokens, self.lora_A) * columns, self.lora_B)
            if self.shifts is not None:
                y = y + (weights.to(x.dtype) @ self.shifts).unsqueeze(1)
        return y.reshape(*x.shape[:-1], -1)

    def _conv_per_image(self, base: nn.Conv2d, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        if x.shape[0] != weights.shape[0]:
            raise DataError(
                f"blending: {weights.shape[0]} weight vectors for a batch of {x.shape[0]}; give one per image."
            )
        stride = base.stride[0] * base.stride[1]
        if base.groups == 1 and self._form_for(x.shape[-2] * x.shape[-1] // stride) == "low_rank":
            return self._low_rank_conv(base, x, weights.to(x.dtype)[:, self.owner, None, None], weights)
        weight, bias = self.merged_weight(weights)
        if is_pointwise(base):
            return _pointwise_per_image(x, weight, bias)
        biases = [None] * len(x) if bias is None else bias.expand(len(x), -1)
        return torch.cat([base._conv_forward(x[i : i + 1], weight[i], biases[i]) for i in range(len(x))])

    def _low_rank_conv(
        self, base: nn.Conv2d, x: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        low = base._conv_forward(x, self.lora_A, None) * columns
        y = base(x) + functional.conv2d(low, self.lora_B[:, :, None, None])
        if self.shifts is not None:
            shift = torch.einsum("nk...,ko->no...", weights.to(x.dtype), self.shifts)
            y = y + (shift if shift.dim() == 4 else shift[:, :, None, None])
        return y

    def _spatial(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        base, blend = self.base, self.blend
        if x.shape[0] != weights.shape[0]:
            raise DataError(
                f"spatial blending: weights for {weights.shape[0]} images, but a layer sees a batch of "
                f"{x.shape[0]} (windows of an image?); use weights per image for this network."
            )
        if isinstance(base, nn.Conv2d):
            if base.groups > 1:
                raise OptionError("spatial blending: an adapter of a grouped convolution cannot be applied per pixel.")
            here = blend.at(*_output_size(base, x))
            return self._low_rank_conv(base, x, here.to(x.dtype)[:, self.owner], here)
        if x.dim() == 2:  # a vector that was pooled over the whole image
            here = weights.mean(dim=(2, 3))
        elif x.dim() == 3:
            here = blend.at_tokens(x.shape[1]).transpose(1, 2)
        else:
            here = blend.at(x.shape[1], x.shape[2]).permute(0, 2, 3, 1)
        here = here.to(x.dtype)
        y = base(x) + functional.linear(functional.linear(x, self.lora_A) * here[..., self.owner], self.lora_B)
        return y if self.shifts is None else y + here @ self.shifts


def _pointwise_per_image(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    n, _, height, width = x.shape
    weight = weight.flatten(2)
    if bias is not None and bias.dim() == 1:
        bias = bias.expand(n, -1)
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        rows = x.permute(0, 2, 3, 1).reshape(n, height * width, -1)
        y = torch.bmm(rows, weight.transpose(1, 2))
        y = y if bias is None else y + bias.unsqueeze(1)
        return y.reshape(n, height, width, -1).permute(0, 3, 1, 2)
    columns = x.reshape(n, -1, height * width)
    y = torch.bmm(weight, columns) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, columns)
    return y.reshape(n, -1, height, width)


def _output_size(conv: nn.Conv2d, x: torch.Tensor) -> tuple[int, int]:
    if conv.padding == "same":
        return x.shape[-2], x.shape[-1]
    padding = (0, 0) if isinstance(conv.padding, str) else conv.padding  # "valid"
    sizes = [
        (x.shape[axis - 2] + 2 * padding[axis] - conv.dilation[axis] * (conv.kernel_size[axis] - 1) - 1)
        // conv.stride[axis]
        + 1
        for axis in (0, 1)
    ]
    return sizes[0], sizes[1]
