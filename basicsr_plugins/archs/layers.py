"""Layers that several networks share: channel LayerNorm, stages, stochastic depth, initialisation."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from basicsr_plugins.archs.convolutions import order_for_convolutions

__all__ = ["GELU", "ChannelLayerNorm", "DropPath", "Stage", "add_product", "at_least_float32", "init_conv_normal"]

_GELU_READS_ORDER = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 2)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Return half precision as float32 and anything else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def add_product(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``x + a * b``, in one pass but for recordings: the ONNX exporter makes float32 of half precision there."""
    return x + a * b if torch.jit.is_tracing() else torch.addcmul(x, a, b)


class GELU(nn.GELU):
    """``nn.GELU`` with a right gradient on every torch that this package runs with.

    Before torch 2.2 the CPU's backward pass reads a gradient that lies in another memory order than the input as if it
    did not, and returns uninitialised memory (pytorch/pytorch issues 107876 and 112006).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it element by element."""
        y = super().forward(x)
        if _GELU_READS_ORDER and y.requires_grad and not y.is_cuda:
            size, stride = y.size(), y.stride()  # not y itself: it would hold its own hook
            y.register_hook(lambda gradient: gradient.new_empty_strided(size, stride).copy_(gradient))
        return y


class ChannelLayerNorm(nn.Module):
    """LayerNorm of each pixel over its channels, with the biased variance.

    Args:
        channels: Number of channels.
        eps: Added to the variance.
        centred: Subtract the mean and add a bias. Without it (Restormer's "BiasFree") the input is only divided by the
            standard deviation, which is still that of the centred values.
    """

    def __init__(self, channels: int, eps: float = 1e-6, centred: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if centred else None
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``x`` of ``(n, c, h, w)``."""
        tokens = x.permute(0, 2, 3, 1)  # the last axis is contiguous where x is channels-last: nothing is moved
        if self.bias is not None:
            tokens = F.layer_norm(tokens, self.weight.shape, self.weight, self.bias, self.eps)
        else:
            # two means: several times faster than torch.var, whose running update does not vectorise over channels
            exact = at_least_float32(tokens)
            variance = (exact - exact.mean(dim=-1, keepdim=True)).square().mean(dim=-1, keepdim=True)
            tokens = (exact * torch.rsqrt(variance + self.eps) * self.weight).to(x.dtype)
        return order_for_convolutions(tokens.permute(0, 3, 1, 2), x)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}, centred={self.bias is not None}"


class Stage(nn.Sequential):
    """A run of blocks that may recompute each block in the backward pass instead of keeping its activations.

    Args:
        *blocks: The blocks, in order; their keys are ``0.``, ``1.`` ...
        use_checkpoint: Recompute (less memory, about a third more time). Hooks on the stage itself are unaffected.
    """

    def __init__(self, *blocks: nn.Module, use_checkpoint: bool = False) -> None:
        super().__init__(*blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: torch.Tensor, *context: Optional[torch.Tensor]) -> torch.Tensor:
        """Run the blocks one after another; what follows ``x`` goes to each of them unchanged."""
        recompute = self.use_checkpoint and self.training and torch.is_grad_enabled()
        for block in self:
            x = checkpoint(block, x, *context, use_reentrant=False) if recompute else block(x, *context)
        return x


class DropPath(nn.Module):
    """Drop the whole branch for some images while training, and scale it up for the others (stochastic depth).

    Args:
        rate: Probability of dropping; 0 and eval mode leave the input as it is.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop images of ``x`` of ``(n, ...)``."""
        if not self.rate or not self.training:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * keep.div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def init_conv_normal(network: nn.Module, std: Optional[float]) -> None:
    """Draw all convolution weights from a truncated normal of ``std`` and zero their biases; None leaves them alone."""
    if std is None:
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
