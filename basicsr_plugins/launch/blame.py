"""Whose fault it is that a rehearsal failed: the part of a run that fails by itself, named by its option's path."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from basicsr_plugins.core.errors import OptionError, PluginError
from basicsr_plugins.training.run_options import RunOptions

__all__ = ["blame_iteration", "blame_losses", "blamed", "place", "words"]


@contextlib.contextmanager
def blamed(where: str, what: str, kind: type[PluginError]) -> Iterator[None]:
    """Turn whatever is raised inside into a typed error with the option's path; our own errors pass."""
    try:
        yield
    except PluginError:
        raise
    except Exception as error:  # stock's, torch's or somebody else's own words
        raise kind(f"{where}: {what}: {words(error)}") from error


def words(error: BaseException) -> str:
    """Return the kind of an error and its first line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _losses(run: RunOptions) -> Iterator[tuple[str, Any]]:
    for key in run.train.__dataclass_fields__ if run.train is not None else ():
        value = getattr(run.train, key)
        if key.endswith("_opt") and key not in ("spn_opt", "peft_opt") and value:
            yield f"train.{key}", value
    for name, value in (run.train.extra_losses if run.train is not None else {}).items():
        yield f"train.extra_losses.{name}", value


def blame_losses(run: RunOptions, error: Exception) -> None:
    """Raise in the name of the loss that cannot be built, if one cannot."""
    from basicsr.losses import build_loss

    for where, options in _losses(run):
        try:
            build_loss(options)
        except Exception as problem:  # whatever a loss raises
            raise OptionError(f"{where}: this loss cannot be built: {words(problem)}") from error


def blame_iteration(model: Any, run: RunOptions, batch: dict[str, Any], error: Exception) -> None:
    """Raise in the name of the part of an iteration that fails by itself: network, loss, or the recipe as a whole."""
    model.feed_data(batch)
    shape = tuple(model.batch["lq"].shape) if "lq" in model.batch else ()
    if shape and "g" in model.networks:
        try:
            output = model.restore(model.lq)
        except Exception as problem:
            raise OptionError(f"network_g: it does not take an input of shape {shape}: {words(problem)}") from error
        if "gt" in model.batch:
            for where, options in _losses(run):
                if where.startswith(("train.pixel_opt", "train.perceptual_opt", "train.extra_losses")):
                    _blame_loss(model, where, options, output.detach(), error)
    raise OptionError(
        f"train: an iteration on a batch of shape {shape} fails: {words(error)} (in {place(error)})."
    ) from error


def _blame_loss(model: Any, where: str, options: Any, output: Tensor, error: Exception) -> None:
    from basicsr.losses import build_loss

    try:
        build_loss(options).to(model.device)(output.requires_grad_(), model.gt)
    except PluginError:  # it knows what it asks for, and the iteration gave it that
        return
    except Exception as problem:
        shapes = f"{tuple(output.shape)} and {tuple(model.gt.shape)}"
        raise OptionError(f"{where}: it cannot compare output and gt of shapes {shapes}: {words(problem)}") from error


def place(error: BaseException) -> str:
    """Return the file and line that an error comes from."""
    trace, found = error.__traceback__, "?"
    while trace is not None:
        code = trace.tb_frame.f_code
        found = f"{os.path.basename(code.co_filename)}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
