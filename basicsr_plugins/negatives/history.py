"""One negative: mmengine's averaged model with SPN's arithmetic. Imported only where negatives are built."""

from __future__ import annotations

from mmengine.model import BaseAveragedModel
from torch import Tensor, nn

__all__ = ["HistoryModel"]


class HistoryModel(BaseAveragedModel):
    """A copy that every ``interval`` iterations becomes ``decay * copy + (1 - decay) * model``.

    Three things differ from mmengine's ``ExponentialMovingAverage``: ``decay`` may be 0 or 1 (Table 9), iteration 0
    does not copy the model (the start of a negative is its owner's choice), and buffers follow when the weights do, so
    that weights and running statistics are always of one moment.

    Args:
        model: The network to follow; a bare one, not wrapped for data parallelism.
        interval: Iterations between updates.
        decay: What stays of the copy's weights, in [0, 1].
    """

    def __init__(self, model: nn.Module, interval: int, decay: float) -> None:
        super().__init__(model, interval=interval)
        self.decay = decay
        self.module.eval()

    def train(self, mode: bool = True) -> HistoryModel:
        """Stay in eval mode."""
        return super().train(False)

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Mix one tensor in place. Equal tensors (a frozen base) stay bit-equal, and so does a plain copy."""
        averaged_param.lerp_(source_param, 1 - self.decay)

    def refresh(self, model: nn.Module) -> None:
        """Average the weights of ``model`` in now, whatever the interval."""
        # mmengine copies at 0 and averages at multiples of the interval
        self.steps.fill_(self.interval)
        self.update_parameters(model)
