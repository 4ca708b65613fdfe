"""The base of every recipe, in stock BasicSR's interface: networks, losses, optimizers; the rest is mixed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, ClassVar, Optional

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.base_model import BaseModel
from torch import Tensor, nn

from basicsr_plugins import stock
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.memory_format import channels_last
from basicsr_plugins.core.random_state import OwnStream
from basicsr_plugins.core.registration import provides
from basicsr_plugins.negatives.ingredient import SPN
from basicsr_plugins.stock.sampler import current_sampler
from basicsr_plugins.training import distributed
from basicsr_plugins.training.checkpointing import Checkpointing
from basicsr_plugins.training.finite import FiniteGuard
from basicsr_plugins.training.inference import Restorer
from basicsr_plugins.training.optimisation import WarmUp, build_optimizer, build_scheduler
from basicsr_plugins.training.pictures import Pictures
from basicsr_plugins.training.precision import Precision, allow_tf32
from basicsr_plugins.training.progressive import ProgressivePatches
from basicsr_plugins.training.reporting import Reporting
from basicsr_plugins.training.signals import StopSignals
from basicsr_plugins.training.stepping import Stepping

__all__ = ["RestorationModel"]


@provides("model")
class RestorationModel(Stepping, Reporting, Checkpointing):
    """Plain restoration, from ``lq`` to ``gt``, and the base class of every recipe.

    A recipe overrides ``phases``: a generator that yields named losses. After each ``yield`` the base runs that phase's
    backward pass, so that two phases never hold their graphs at the same time; then it clips, steps every optimizer
    once and averages the weights. ``network_names`` says which networks take part: ``"g"`` stands for ``network_g`` in
    the option file, ``net_g`` here, ``optim_g`` under ``train`` and ``net_g_*.pth`` on disk.

    Args:
        opt: BasicSR's option dictionary. ``train`` is checked against ``Settings``, ``val`` against ``ValSettings``.

    Raises:
        OptionError: An option is wrong; the text starts with its YAML path.

    .. code-block:: yaml

        model_type: RestorationModel
        network_g: {type: NAFNet, preset: small}
        path: {pretrain_network_g: experiments/dcpt/models/net_g_latest.pth}
        train:
          total_iter: 100000
          optim_g: {type: AdamW, lr: !!float 3e-4}
          pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
    """

    #: Whether a recipe has losses of its own, so that it trains without a comparison of output and clean image.
    restoration_is_optional: ClassVar[bool] = False

    def __init__(self, opt: dict[str, Any]) -> None:
        BaseModel.__init__(self, opt)
        if opt["num_gpu"] > 1 and not opt["dist"]:
            raise OptionError(
                f"num_gpu: {opt['num_gpu']} GPUs without a launcher. Start one process per GPU (torchrun "
                f"--nproc_per_node={opt['num_gpu']} ... --launcher pytorch), or use num_gpu: 1."
            )
        self.run = self.read_options(opt)
        self.settings, self.val_settings = self.run.train, self.run.val
        self.scale = opt.get("scale", 1)
        self.pictures = Pictures(opt)
        self.results, self.metric_results, self.best_metric_results = {}, {}, {}
        self.validated = {}
        self.stop = StopSignals(self)
        self.networks, self.averages = {}, {}
        self.batch, self.files, self.output, self.logged = {}, [], None, {}
        self.spn = None
        self.last_iter, self.batches_into_epoch, self.counted_epoch = 0, 0, None
        for name in self.used(self.run):
            self._add_network(name)
        self.setup()
        if self.is_train:
            self.init_training_settings()
        stock.logger().info(f"basicsr_plugins: {type(self).__name__} trains {', '.join(self.networks)}.")

    # -- what a recipe overrides ------------------------------------------------------------------------------------

    def setup_losses(self) -> None:
        """Build the losses; called for training only."""
        self.cri_pix = self.make_loss(self.settings.pixel_opt)
        self.cri_perceptual = self.make_loss(self.settings.perceptual_opt)
        self.extra_losses = {name: self.make_loss(options) for name, options in self.settings.extra_losses.items()}
        if self.settings.spn_opt is not None:
            self.spn = SPN(self.settings.spn_opt, self.net_g, lambda: build_network(self.run.network("g")))
        if not (self.compares_images or self.restoration_is_optional):
            raise OptionError("train: no loss is set; give pixel_opt, perceptual_opt or extra_losses.")

    @property
    def compares_images(self) -> bool:
        """Whether some loss compares the output with the clean image."""
        return bool(self.cri_pix or self.cri_perceptual or self.extra_losses)

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield the named losses of each phase; here one phase of plain restoration."""
        self.need("lq", "gt")
        self.output = self.restore(self.lq)
        yield self.restoration_losses(self.output, self.gt)

    # -- building blocks for phases ---------------------------------------------------------------------------------

    def need(self, *keys: str) -> None:
        """Check that the batch holds what the recipe needs.

        Raises:
            DataError: A key is missing; the text lists what the data set returns.
        """
        missing = [key for key in keys if key not in self.batch]
        if missing:
            raise DataError(
                f"datasets.train: {type(self).__name__} needs {', '.join(keys)} in every batch, the data set "
                f"({self.opt['datasets']['train'].get('type')}) returns no {', '.join(missing)}."
            )

    def restore(self, image: Tensor) -> Tensor:
        """Run ``net_g`` for training; the result is float32, so that losses are, whatever the precision."""
        return self.net_g(image).float()

    def make_loss(self, options: Optional[dict[str, Any]]) -> Any:
        """Build a registered loss, or None where there are no options."""
        return build_loss(options).to(self.device) if options else None

    def restoration_losses(self, output: Tensor, gt: Tensor, net_input: Optional[Tensor] = None) -> dict[str, Tensor]:
        """Return stock's pixel and perceptual losses, the extra ones and SPN's, by log name.

        Args:
            output: Output of ``net_g``.
            gt: The clean image.
            net_input: Input of ``net_g``; ``lq`` if left out.
        """
        losses: dict[str, Tensor] = OrderedDict()
        if self.cri_pix:
            losses["l_pix"] = self.cri_pix(output, gt)
        if self.cri_perceptual:
            for name, value in zip(("l_percep", "l_style"), self.cri_perceptual(output, gt)):
                if value is not None:
                    losses[name] = value
        for name, loss in self.extra_losses.items():
            value = loss(output, gt)
            losses.update(value if isinstance(value, dict) else {name: value})
        if self.spn:
            losses.update(self.spn.losses(output, gt, self.lq if net_input is None else net_input))
        return losses

    # -- set-up -----------------------------------------------------------------------------------------------------

    def _add_network(self, name: str) -> None:
        network = self.model_to_device(build_network(self.network_options(self.run, name, self.networks)))
        self.print_network(network)
        setattr(self, f"net_{name}", network)
        self.networks[name] = network
        self.load_pretrained(name, network)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to the device; every rank gets rank 0's weights. See ``training/distributed.py``."""
        net = net.to(self.device)
        if self.is_train and self.settings.channels_last:
            net = channels_last(net)
        distributed.send_from_rank_0(net)
        return net

    def init_training_settings(self) -> None:
        """Build averages, losses, optimizers, schedules and the parts of the training step."""
        settings = self.settings
        if settings.spn_opt is not None and not self.takes_spn:
            raise OptionError(f"train.spn_opt: {type(self).__name__} does not train net_g, so it has no history.")
        allow_tf32(settings.tf32)
        self.precision = Precision(settings.precision, self.device)
        self.guard = FiniteGuard(settings.skip_nonfinite)
        self.window_is_finite = True
        if current_sampler() is not None:  # BasicSR's loop, which can go on; a loop of one's own has its own ways
            self.stop.install()
        self.random_stream = OwnStream()
        self.progressive = ProgressivePatches(settings.progressive) if settings.progressive else None
        self.ema_decay = settings.ema_decay
        for name, network in self.networks.items():
            network.train()
            if self.ema_decay > 0:
                self._add_average(name, network)
        self.setup_losses()
        self.setup_optimizers()
        self.setup_schedulers()
        self.setting = self.fresh_setting()
        if settings.compile:
            self.compile_networks(settings.compile if isinstance(settings.compile, dict) else {})

    def _add_average(self, name: str, network: nn.Module) -> None:
        average = deepcopy(network).eval().requires_grad_(False)
        self.averages[name] = average
        setattr(self, f"net_{name}_ema", average)  # stock's attribute name
        self.load_pretrained(name, average, key="params_ema")

    def compile_networks(self, arguments: dict[str, Any]) -> None:
        """Compile every network for training; validation runs them as they are, whatever the size of its images."""
        for network in self.networks.values():
            if not hasattr(network, "compile"):
                raise OptionError("train.compile needs torch 2.2 or newer.")
            network.compile(**arguments)  # in place: state-dict keys stay as they are

    def setup_optimizers(self) -> None:
        """One optimizer for each network, from ``train.optim_<name>``."""
        for name, network in self.networks.items():
            parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
            if not parameters:
                continue
            options = getattr(self.settings, f"optim_{name}")
            if not options:
                raise OptionError(f"train.optim_{name}: this option is required to train net_{name}.")
            optimizer = build_optimizer(options, parameters, f"train.optim_{name}")
            setattr(self, f"optimizer_{name}", optimizer)
            self.optimizers.append(optimizer)

    def setup_schedulers(self) -> None:
        """The same schedule for every optimizer, and the warm-up on top."""
        self.schedulers = [build_scheduler(self.settings.scheduler, o, "train.scheduler") for o in self.optimizers]
        self.warm_up = WarmUp(self.optimizers, self.schedulers)

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the learning rates of an iteration (stock's loop calls this)."""
        self.warm_up.step(current_iter, warmup_iter)

    # -- validation -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def test(self) -> None:
        """Restore ``self.lq``, of any size, into ``self.output``."""
        settings = self.val_settings
        network = self.evaluation_network()
        restorer = Restorer(
            network, self.scale, settings.pad_multiple, settings.tile, settings.tile_overlap, settings.self_ensemble
        )
        self.output = restorer(self.lq)
