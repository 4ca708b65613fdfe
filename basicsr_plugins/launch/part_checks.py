"""Check what a recipe is made of before anything is built: losses, optimizers, schedules, metrics."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, Optional

import torch

from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import DependencyError, OptionError, PluginError, one_of
from basicsr_plugins.core.options import check_call
from basicsr_plugins.metrics.direction import lower_is_better
from basicsr_plugins.negatives.ingredient import check_spn
from basicsr_plugins.training.optimisation import check_optimizer, check_scheduler
from basicsr_plugins.training.progressive import ProgressivePatches
from basicsr_plugins.training.run_options import RunOptions

__all__ = ["check_metrics", "check_training_parts"]


def check_training_parts(run: RunOptions, recipe: Any) -> None:
    """Check section ``train`` beyond its types: every loss, optimizer and schedule, and what they ask of each other."""
    settings = run.train
    if settings.progressive:
        ProgressivePatches(settings.progressive).check(run.opt["datasets"]["train"], run.opt.get("scale", 1))
    if settings.scheduler:
        check_scheduler(settings.scheduler, "train.scheduler")
    if isinstance(settings.compile, Mapping):
        check_call(torch.compile, settings.compile, "train.compile")
    if settings.spn_opt is not None:
        if not recipe.takes_spn:
            raise OptionError(f"train.spn_opt: {recipe.__name__} does not train net_g, so it has no history.")
        check_spn(settings.spn_opt)
    for key in settings.__dataclass_fields__:
        value = getattr(settings, key)
        if key.startswith("optim_") and value:
            check_optimizer(value, f"train.{key}")
        elif key.endswith("_opt") and key not in ("spn_opt", "peft_opt") and value:
            _check_loss(value, f"train.{key}")
    for name, value in settings.extra_losses.items():
        _check_loss(value, f"train.extra_losses.{name}")


def _check_loss(options: Any, where: str) -> None:
    if not isinstance(options, Mapping) or "type" not in options:
        raise OptionError(f"{where}: a loss needs a `type` and its arguments, got {options!r}.")
    loss = registration.lookup("loss", options["type"], f"{where}.type")
    check_call(loss, {key: value for key, value in options.items() if key != "type"}, where)


def check_metrics(metrics: Mapping[str, Any], needs_direction: bool) -> None:
    """Check ``val.metrics``; a training has to know of each which way it is better."""
    for name, options in metrics.items():
        where = f"val.metrics.{name}"
        if not isinstance(options, Mapping) or "type" not in options:
            raise OptionError(f"{where}: a metric needs a `type` and its arguments, got {options!r}.")
        metric = registration.lookup("metric", options["type"], f"{where}.type")
        if options.get("better", "higher") not in ("higher", "lower"):
            raise OptionError(f"{where}.better: {one_of(options['better'], ('higher', 'lower'), 'direction')}")
        images = dict.fromkeys(("img", "img2"))
        arguments = {key: value for key, value in options.items() if key not in ("type", "better")}
        check_call(metric, {**arguments, **{k: v for k, v in images.items() if k in _arguments(metric)}}, where)
        for key in arguments:  # stock's metrics swallow what they do not know
            close = difflib.get_close_matches(key, _arguments(metric), n=1, cutoff=0.75)
            if close and key not in _arguments(metric):
                raise OptionError(f"{where}.{key}: {one_of(key, _arguments(metric), 'option')}")
        if needs_direction and _direction(options, metric, where) is None:
            raise OptionError(
                f"{where}.better: this option is required: {options['type']} does not say which way it is better. "
                "Give higher or lower; the best value and save_best follow it."
            )


def _direction(options: Mapping[str, Any], metric: Any, where: str) -> Optional[bool]:
    try:
        return lower_is_better(options, metric)
    except DependencyError as error:
        raise DependencyError(f"{where}: {error}") from error
    except PluginError as error:
        raise OptionError(f"{where}: {str(error).partition('val.metrics: ')[2] or error}") from error
    except Exception as error:  # pyiqa's own words: an option that it does not take, weights that it cannot fetch
        raise OptionError(f"{where}: {options['type']} cannot be built: {error}") from error


def _arguments(function: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, value in inspect.signature(function).parameters.items() if value.kind in kinds]
