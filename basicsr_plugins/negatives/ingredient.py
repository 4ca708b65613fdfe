"""SPN in any restoration recipe: what ``train.spn_opt`` adds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from torch import Tensor, nn

from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.core.options import check_call, non_negative, option, parse
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.losses.feature_distance import FeatureDistance
from basicsr_plugins.losses.spn_guard import SPNGuard
from basicsr_plugins.losses.uncertainty import uncertainty_term
from basicsr_plugins.negatives import NegativeModels
from basicsr_plugins.negatives.options import check_negatives

__all__ = ["SPN", "SPNSettings", "check_spn"]

#: Given by the recipe, not by the option file.
_NOT_OPTIONS = ("model", "factory")


@dataclass
class SPNSettings:
    """Section ``train.spn_opt``.

    ``spn_opt: {}`` has the paper's lambda, steps and w (1e-4; 100, 500, 1000, 2000; 0.1) and the VGG16 layers of the
    released configuration. The start (after the largest step, iteration 2000) and the warm-up of 5000 iterations are
    ours: the paper states neither, and the released code adds the whole loss from the first iteration on, as
    ``guard: {start_iter: 0, warmup_iter: 0, on_collapse: ignore}`` does.

    .. code-block:: yaml

        spn_opt:
          loss: {type: SPNLoss, loss_weight: !!float 1e-4}
          negatives: {steps: [100, 500, 1000, 2000], decay: 0.1}
          guard: {warmup_iter: 5000, on_collapse: lower}
    """

    loss: dict[str, Any] = option(
        {"type": "SPNLoss"},
        "the contrastive loss: SPNLoss, ContrastiveRegularizationLoss, CurricularContrastiveLoss or PCLLoss",
        source="Wu et al., AAAI 2024",
    )
    negatives: dict[str, Any] = option(
        {}, "arguments of NegativeModels, where the loss uses negatives", source="Wu et al., AAAI 2024"
    )
    guard: dict[str, Any] = option({}, "arguments of SPNGuard: start, warm-up of the weight, collapse detection")
    uncertainty_weight: float = option(
        0.0, "weight of the reconstruction error where the negatives disagree; 0 for none", check=non_negative
    )


def check_spn(given: Any, where: str = "train.spn_opt") -> tuple[SPNSettings, Any]:
    """Return the checked settings and the built loss.

    Raises:
        OptionError: An option is unknown, of the wrong type or out of range.
        DependencyError: The VGG's weights cannot be had.
    """
    settings = given if isinstance(given, SPNSettings) else parse(SPNSettings, given, where)
    loss = _build(settings.loss, f"{where}.loss")
    for key in _NOT_OPTIONS:
        if key in settings.negatives:
            raise OptionError(f"{where}.negatives.{key}: the recipe gives this itself; remove it.")
    negatives = check_call(NegativeModels, {"model": nn.Identity(), **settings.negatives}, f"{where}.negatives")
    bound = inspect.signature(NegativeModels).bind(**negatives)
    bound.apply_defaults()
    intervals, _ = _with_path(f"{where}.negatives", check_negatives, **bound.arguments)
    _with_path(f"{where}.guard", SPNGuard, **check_call(SPNGuard, settings.guard, f"{where}.guard"))
    uses_negatives = "negatives" in loss.inputs or settings.uncertainty_weight > 0
    if settings.negatives and not uses_negatives:
        raise OptionError(f"{where}.negatives: {settings.loss['type']} uses no negative models; remove this section.")
    if settings.uncertainty_weight and min(len(intervals), negatives.get("negatives_per_step") or len(intervals)) < 2:
        raise OptionError(f"{where}.uncertainty_weight: a spread needs at least 2 negatives in each step.")
    return settings, loss


class SPN:
    """The contrastive loss, its negative models and its guards: ``losses``, ``before_step``, ``after_step``, state.

    Iterations are counted here, one per optimizer step, so that gradient accumulation does not change the history.

    Args:
        given: ``train.spn_opt``, as it is written or parsed.
        network: The network to take negatives from; already on its device.
        factory: Builds a freshly initialised network, for random negatives.
        where: The YAML path, for messages.

    Raises:
        OptionError: An option is wrong.
        DependencyError: The VGG's weights or mmengine are missing.
    """

    def __init__(
        self,
        given: Union[Mapping[str, Any], SPNSettings],
        network: nn.Module,
        factory: Optional[Callable[[], nn.Module]] = None,
        where: str = "train.spn_opt",
    ) -> None:
        self.settings, loss = check_spn(given, where)
        device = next(network.parameters()).device
        self.loss: Any = loss.to(device)
        #: None for a loss of somebody else's that compares without it
        self.distance: Optional[FeatureDistance] = getattr(loss, "distance", None)
        if self.distance is not None:
            self.distance.trust_outputs()
        self.guard = SPNGuard(**self.settings.guard)
        self.iteration = 0
        self.negatives: Optional[NegativeModels] = None
        if "negatives" in loss.inputs or self.settings.uncertainty_weight > 0:
            self.negatives = _with_path(
                f"{where}.negatives", NegativeModels, network, factory=factory, **self.settings.negatives
            )
        self._figures: dict[str, Tensor] = {}
        self._last: tuple[Tensor, Tensor] | None = None
        self._measured: Optional[Tensor] = None

    @property
    def weight(self) -> float:
        """Factor of the losses in this iteration: 0 before the start, 1 after the warm-up."""
        negatives = self.negatives
        history = negatives is not None and negatives.mode == "history"
        return self.guard.scale(self.iteration, max(negatives.steps) if negatives is not None and history else 0)

    def losses(self, output: Tensor, gt: Tensor, net_input: Tensor) -> dict[str, Tensor]:
        """Return the losses to add to the recipe's own, by log name; none before the start.

        Args:
            output: The network's output ``(n, 3, h, w)``.
            gt: The clean image, of that shape.
            net_input: Input of the network.
        """
        weight = self.weight
        if self.distance is not None:
            self.distance.check_range(gt, strict=True)
        self._last = (output.detach(), gt)
        if weight == 0:
            self._measured = self.guard.measure(output.detach(), gt)
            self._figures = {}
            return {}
        at_hand: dict[str, Any] = {"target": gt, "lq": net_input}
        if self.negatives is not None:
            at_hand["negatives"] = self.negatives(net_input)
        terms = self.loss.terms(output, **{name: at_hand[name] for name in self.loss.inputs})
        added = {name: weight * value for name, value in terms.items() if name.startswith("l_")}
        self._figures = {name: value for name, value in terms.items() if not name.startswith("l_")}
        pushed = sum(-value.detach() for value in added.values()) if "spn_distance" in terms else None
        self._measured = self.guard.measure(output.detach(), gt, pushed)
        if self.settings.uncertainty_weight:
            term = uncertainty_term(output, gt, at_hand["negatives"])
            added["l_uncertainty"] = weight * self.settings.uncertainty_weight * term
        return added

    def settle(self, counts: bool) -> None:
        """Say whether the iteration counts or is skipped, for a loss that is not finite: the guard sees what counts."""
        measured, self._measured = self._measured, None
        if counts:
            self.guard.take(measured)

    def before_step(self, network: nn.Module) -> None:
        """Update the negatives that take the weights before the optimizer's step (mode ``adaptive``)."""
        if self.negatives is not None and self.negatives.before_step:
            self.negatives.update(network, *(self._last or ()))

    def after_step(self, network: nn.Module) -> dict[str, Tensor]:
        """Update the other negatives, after the optimizer's step; returns figures for the log."""
        self.settle(True)
        self.iteration += 1
        if self.negatives is not None and not self.negatives.before_step:
            self.negatives.update(network)
        self._last = None
        return self._figures

    def after_validation(self, metrics: Mapping[str, float]) -> None:
        """Advance the curriculum, where the loss has one.

        Raises:
            OptionError: The validation has no ``psnr`` and ``ssim``.
        """
        if not hasattr(self.loss, "update_curriculum"):
            return
        if "psnr" not in metrics or "ssim" not in metrics:
            raise OptionError(
                f"val.metrics: {type(self.loss).__name__} follows the metrics named 'psnr' and 'ssim', "
                f"got {', '.join(metrics) or 'none'}."
            )
        self.loss.update_curriculum(metrics["psnr"], metrics["ssim"])

    def state_dict(self) -> dict[str, Any]:
        """Return what a bit-identical resume needs: negatives, curriculum, guard, counters."""
        return {
            "iteration": self.iteration,
            "guard": self.guard.state_dict(),
            "negatives": None if self.negatives is None else self.negatives.state_dict(),
            "loss": self._loss_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            CheckpointError: The state is of other negatives or another loss.
        """
        # states of earlier versions have no `_extra_state`: there a seeded PCLLoss begins its draws anew
        mine, theirs = (set(of) - {"_extra_state"} for of in (self._loss_state(), state["loss"]))
        if (state["negatives"] is None) != (self.negatives is None) or mine != theirs:
            raise CheckpointError(
                f"train.spn_opt: the checkpoint was written with another contrastive loss than "
                f"{type(self.loss).__name__}. Resume with the options it was started with."
            )
        self.iteration = int(state["iteration"])
        self.guard.load_state_dict(state["guard"])
        if self.negatives is not None:
            self.negatives.load_state_dict(state["negatives"])
        self.loss.load_state_dict({**self.loss.state_dict(), **state["loss"]})

    def _loss_state(self) -> dict[str, Tensor]:
        # the frozen features are not state: they come from their own file
        return {key: value for key, value in self.loss.state_dict().items() if not key.startswith("distance.features.")}


def _build(options: Mapping[str, Any], where: str) -> Any:
    if "type" not in options:
        raise OptionError(f"{where}.type: this option is required, for example SPNLoss.")
    loss_class = lookup("loss", options["type"], f"{where}.type")
    arguments = check_call(loss_class, {key: value for key, value in options.items() if key != "type"}, where)
    if not hasattr(loss_class, "inputs"):
        raise OptionError(
            f"{where}.type: {options['type']} is no contrastive loss. Allowed: SPNLoss, ContrastiveRegularizationLoss, "
            "CurricularContrastiveLoss, PCLLoss, or a loss of yours with `inputs` and `terms` like theirs."
        )
    try:
        return _with_path(where, loss_class, **arguments)
    except DependencyError as problem:  # the VGG's weights
        raise DependencyError(f"{where}.{problem}") from problem.__cause__


def _with_path(where: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call, and put the YAML path before the message of a refused option."""
    try:
        return function(*args, **kwargs)
    except OptionError as problem:
        raise OptionError(f"{where}.{problem}") from None
