"""fp32, bf16 or fp16 for the forward and backward pass, as one object that the training step asks."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from basicsr_plugins.core.errors import OptionError, TrainingError
from basicsr_plugins.core.precision import autocast_dtype

__all__ = ["Precision", "allow_tf32"]

#: Loss scaling starts at 2 ** 16 and is halved by every overflow; below this the gradients themselves are too large.
_SMALLEST_SCALE = 2.0**-10


class Precision:
    """Autocast and, for fp16, loss scaling.

    Args:
        name: ``fp32`` (neither), ``bf16`` (autocast) or ``fp16`` (autocast and a gradient scaler).
        device: Where the networks are.

    Raises:
        OptionError: This torch has no fp16 gradient scaler for this device.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype = autocast_dtype(name, "train.precision")
        self.device_type = device.type
        self.scaler = self._make_scaler() if name == "fp16" else None

    def _make_scaler(self) -> Any:
        if hasattr(torch.amp, "GradScaler"):
            return torch.amp.GradScaler(self.device_type)
        if self.device_type == "cuda":  # torch < 2.3
            return torch.cuda.amp.GradScaler()
        raise OptionError(
            f"train.precision: torch {torch.__version__} has no fp16 training on {self.device_type}; use bf16 or fp32."
        )

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which losses are computed."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of one (scaled) loss."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the gradients back to their true size, before they are clipped or logged."""
        if self.scaler and _has_gradients(optimizer):
            self.scaler.unscale_(optimizer)

    def lower_scale(self) -> bool:
        """Take note of gradients that overflowed in fp16; False where nothing is scaled, so that this is no overflow.

        No optimizer is stepped then, not even one whose own gradients are finite: a recipe's networks move together.

        Raises:
            TrainingError: The scale is at its lower end.
        """
        if not self.scaler:
            return False
        self.scaler.update()
        if self.scaler.get_scale() < _SMALLEST_SCALE:
            raise TrainingError(
                "train.precision: fp16 gradients overflow at every loss scale; use bf16 or fp32, or lower the "
                "learning rate. The weights and the last checkpoint are untouched."
            )
        return True

    def discard(self) -> None:
        """Forget that gradients were unscaled: the step is not taken, for a reason that is not their size."""
        if self.scaler:
            self.scaler.update(self.scaler.get_scale())

    def step(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Step every optimizer, with gradients that are unscaled and known to be finite."""
        for optimizer in optimizers:
            optimizer.step()  # the scaler's own step would wait for the device to learn that they are finite
        if self.scaler and any(_has_gradients(optimizer) for optimizer in optimizers):
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state (empty without one)."""
        return self.scaler.state_dict() if self.scaler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the scaler's state."""
        if self.scaler and state:
            self.scaler.load_state_dict(state)


def _has_gradients(optimizer: torch.optim.Optimizer) -> bool:
    return any(parameter.grad is not None for group in optimizer.param_groups for parameter in group["params"])


def allow_tf32(allowed: bool | None) -> None:
    """Switch TF32 for matrix products and convolutions on or off; None leaves torch's setting alone."""
    if allowed is not None:
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
