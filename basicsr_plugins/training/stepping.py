"""The part of the base model that turns phases into one training step."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from basicsr_plugins.training import distributed
from basicsr_plugins.training.ema import update_average
from basicsr_plugins.training.engine_base import EngineBase
from basicsr_plugins.training.optimisation import clip_gradients, gradient_norm

__all__ = ["Stepping"]


class Stepping(EngineBase):
    """Batches to the device; each phase forward and backward; then clipping, every optimizer, averages, SPN."""

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch from the loader."""
        self.batch, self.output = {}, None
        for key in ("lq", "gt", *self.batch_keys):
            if key in data:
                tensor = data[key].to(self.device, non_blocking=True)
                if tensor.dim() == 4 and self.settings and self.settings.channels_last:
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
                self.batch[key] = tensor
        self.files = [str(path) for path in data.get("lq_path") or data.get("gt_path") or []]

    def optimize_parameters(self, current_iter: int) -> None:
        """Run every phase of one iteration, and step where its accumulation window ends."""
        self.count_batch()
        self.last_iter = current_iter
        if self.settings.compile and hasattr(torch, "compiler"):
            # a step may run a network several times: CUDA graphs may reuse their memory from here on
            getattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)()
        with self.stop, self.random_stream:
            self._train_one_iteration(current_iter)

    def _train_one_iteration(self, current_iter: int) -> None:
        every = self.settings.accumulate
        if self.progressive:
            self.batch = self.progressive.cut(self.batch, current_iter, self.scale)
        if (current_iter - 1) % every == 0:
            self._zero_gradients()
            self.window_is_finite = True
        buffers = self.guard.remember_buffers(self.networks.values())
        losses = self.logged = self._backward(current_iter)
        ends = current_iter % every == 0
        parameters = self.trained_parameters() if ends and self.window_is_finite else []
        values = torch.stack([loss.float().mean() for loss in losses.values()])
        broken = self._exchange(values, parameters)
        norm = self._unscaled_norm(parameters) if parameters else values.new_zeros(())
        # the only wait for the device in an iteration
        *numbers, size = torch.cat([values, norm.to(values).view(1)]).tolist()
        accepted = self.guard.accepts(dict(zip(losses, numbers)), current_iter, self.batch, self.files, broken)
        if self.spn:
            self.spn.settle(accepted)
        if not accepted:
            self.guard.restore_buffers(buffers)
            self.window_is_finite = False
            self.precision.discard()
        if ends and self.window_is_finite:
            self._step(current_iter, parameters, norm, size)
        elif ends:
            self._zero_gradients()
            self.guard.close_window(False, current_iter // every)

    def _backward(self, current_iter: int) -> dict[str, Tensor]:
        """Run each phase forward and backward and return the sum of each loss, on the device."""
        every = self.settings.accumulate
        losses: dict[str, Tensor] = OrderedDict()
        phases: Any = self.phases(current_iter)
        while True:
            with self.precision.autocast():
                phase = next(phases, None)
            if phase is None:
                return losses
            total: Any = sum(phase.values())
            self.precision.backward(total / every if every > 1 else total)
            for name, value in phase.items():
                losses[name] = losses.get(name, 0) + value.detach()
            del phase, total

    def _exchange(self, values: Tensor, parameters: list[nn.Parameter]) -> bool:
        """Tell the other ranks what each must know before the step; return whether a loss is not finite on any rank.

        Every flag of an iteration belongs here: it is one exchange and one wait, however many there are.
        """
        if not distributed.is_distributed():
            return False
        stop, used = self.stop.flags(), [parameter.grad is not None for parameter in parameters]
        flags = torch.tensor([False, *stop, *used], device=values.device)
        flags[0] = ~torch.isfinite(values).all()
        broken, *answers = distributed.any_rank_each(flags)
        self.stop.agree(answers[: len(stop)])
        used = answers[len(stop) :]
        if not broken:
            distributed.average_gradients(parameters, used)
        return broken

    def _unscaled_norm(self, parameters: list[nn.Parameter]) -> Tensor:
        for optimizer in self.optimizers:
            self.precision.unscale(optimizer)
        return gradient_norm(parameters)

    def _zero_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return every parameter that some optimizer moves."""
        return [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]

    def _step(self, current_iter: int, parameters: list[nn.Parameter], norm: Tensor, size: float) -> None:
        """Clip and step; ``norm`` is that of the gradients, the same on every rank, and ``size`` its value."""
        if self.settings.grad_clip is not None:
            self.logged["grad_norm"] = norm
        if not math.isfinite(size):
            if not self.precision.lower_scale():
                self.guard.refuse_gradients(size, current_iter, self.files)
                self.guard.close_window(False, current_iter // self.settings.accumulate)
            self._zero_gradients()
            return
        clip_gradients(parameters, self.settings.grad_clip, norm)
        if self.spn:
            self.spn.before_step(self.net_g)
        self.precision.step(self.optimizers)
        self.guard.close_window(True, current_iter // self.settings.accumulate)
        for name, average in self.averages.items():
            update_average(average, self.networks[name], self.ema_decay)
        if self.spn:
            self.logged.update(self.spn.after_step(self.net_g))

    def get_current_log(self) -> dict[str, float]:
        """Return the last iteration's losses as numbers, averaged over the ranks."""
        return self.reduce_loss_dict(OrderedDict(self.logged))
