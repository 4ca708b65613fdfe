"""Build what a run will build and make one iteration and one validation step of it, before any folder is made.

What cannot run shows here, as one typed error with the option's path: a crop too small for a loss, a layer that is not
there, a loss that refuses its reduction, weights of another network. Nothing is written, every random generator is put
back, and the networks are thrown away, so that the run itself starts as if nothing had been.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from basicsr_plugins import stock
from basicsr_plugins.core.checked import CheckedSection, result_of
from basicsr_plugins.core.errors import CheckpointError, DataError, OptionError, PluginError
from basicsr_plugins.core.random_state import preserved_random_state
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.data.loader_options import PatchOptions
from basicsr_plugins.data.plan import DatasetPlan
from basicsr_plugins.launch.blame import blame_iteration, blame_losses, blamed, place, words
from basicsr_plugins.training.run_options import RunOptions
from basicsr_plugins.training.validation import images_of, measure_image

__all__ = ["rehearse", "rehearse_data"]

#: Sides up to this are taken whole; of larger ones the remainder of 32 is kept, which windows and strides look at.
_SMALL, _UNIT = 48, 32
#: The largest validation image that is tried: enough for a metric of blocks of 96 or of five scales.
_LARGEST = 256
#: The order of an epoch's samples is drawn as a whole, eight bytes and a Python number each.
_MOST_SAMPLES = 10**9


def rehearse(run: RunOptions, recipe: Any, data: Mapping[str, Dataset]) -> None:
    """Build the recipe's model, train it on two samples and validate one image of each data set.

    Args:
        run: The checked options.
        recipe: The class of the model.
        data: The data sets by section, as ``rehearse_data`` returned them.

    Raises:
        PluginError: What the run would have ended with, with the option's path.
    """
    # whatever a recipe writes while it validates goes to a folder that is gone afterwards
    with preserved_random_state(), stock.silent_log(), tempfile.TemporaryDirectory() as folder:
        model = _build(run, recipe, folder)
        try:
            if run.train is not None:
                _train(model, run, data["train"])
            for phase, dataset in data.items():
                if phase != "train":
                    _validate(model, dataset, phase)
        finally:
            del model
            gc.collect()
            if torch.cuda.is_available() and torch.cuda.is_initialized():
                torch.cuda.empty_cache()


def rehearse_data(opt: Mapping[str, Any], ours_alone: bool = False) -> dict[str, Dataset]:
    """Build every data set and its loader, and return the data sets by section.

    Args:
        opt: The checked options.
        ours_alone: Leave BasicSR's own data sets to BasicSR.

    Raises:
        PluginError: One cannot be built, has no samples, or fewer than a batch.
    """
    from basicsr.data import build_dataloader

    built: dict[str, Dataset] = {}
    with preserved_random_state(), stock.silent_log():
        for phase, section in opt["datasets"].items():
            where = f"datasets.{phase}"
            if ours_alone and result_of(section, DatasetPlan) is None:
                continue
            with blamed(where, "the data set cannot be built", OptionError):
                dataset = lookup("dataset", section["type"], f"{where}.type")(copy.deepcopy(_without_cache(section)))
                length = len(dataset)
            if length < 1:
                raise DataError(f"{where}: there are no samples.")
            if phase == "train":
                _need_one_batch(opt, section, length)
            with blamed(where, "its loader cannot be built", OptionError):
                build_dataloader(
                    dataset, section, num_gpu=opt["num_gpu"], dist=opt["dist"], sampler=None, seed=opt["manual_seed"]
                )
            built[phase] = dataset
    return built


def _without_cache(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the section with a plan that keeps no images in memory."""
    plan = result_of(section, DatasetPlan)
    if plan is None or not isinstance(plan.options, PatchOptions) or plan.options.cache == "none":
        return section
    plan = copy.copy(plan)
    plan.options = dataclasses.replace(plan.options, cache="none")
    return CheckedSection(section, plan)


def _need_one_batch(opt: Mapping[str, Any], section: Mapping[str, Any], length: int) -> None:
    # as stock's sampler and loader count
    samples = math.ceil(length * section.get("dataset_enlarge_ratio", 1) / opt["world_size"])
    batch = section["batch_size_per_gpu"] * (1 if opt["dist"] else max(1, opt["num_gpu"]))
    if samples > _MOST_SAMPLES:
        raise OptionError(
            f"datasets.train.dataset_enlarge_ratio: {samples} samples in an epoch are more than can be put in order "
            f"({_MOST_SAMPLES})."
        )
    if samples < batch:
        raise DataError(
            f"datasets.train: {samples} samples in an epoch of one process are fewer than one batch of {batch}. Lower "
            "batch_size_per_gpu or raise dataset_enlarge_ratio."
        )


def _build(run: RunOptions, recipe: Any, folder: str) -> Any:
    """Build the model with what only a whole training needs switched off: compiling, stages of patch sizes."""
    opt = dict(run.opt)
    if not torch.cuda.is_available():
        opt["num_gpu"] = 0
    paths = opt["path"] = dict(opt.get("path") or {})
    if paths.get("resume_state") or opt.get("auto_resume"):  # the networks then come from the experiment itself
        for key in [key for key in paths if key.startswith("pretrain_network_") and paths[key]]:
            if not os.path.exists(paths[key]):
                del paths[key]
    for key in ("experiments_root", "results_root", "models", "training_states", "log", "visualization"):
        paths[key] = os.path.join(folder, key)
    if run.train is not None:
        off = {"compile": False, "progressive": None, "save_best": False}
        settings = dataclasses.replace(run.train, **off)
        opt["train"] = CheckedSection(opt["train"], settings)
    try:
        model = recipe(copy.deepcopy(opt))
    except CheckpointError as error:
        text = str(error)
        for key, path in paths.items():
            if key.startswith("pretrain_network_") and path and str(path) in text and not text.startswith("path."):
                raise CheckpointError(f"path.{key}: {text}") from error
        raise
    except PluginError:
        raise
    except Exception as error:
        blame_losses(run, error)
        raise OptionError(f"model_type: {recipe.__name__} cannot be built: {words(error)}") from error
    if model.is_train and model.spn:  # as it will be when it has started
        model.spn.guard.start_iter = model.spn.guard.warmup_iter = 0
    return model


def _train(model: Any, run: RunOptions, dataset: Dataset) -> None:
    """Make an iteration at the start and one at the end of the training, on small patches if they do."""
    section = run.opt["datasets"]["train"]
    with blamed("datasets.train", "a batch cannot be made", DataError):
        samples = [dataset[index % len(dataset)] for index in range(min(2, section["batch_size_per_gpu"]))]  # type: ignore[arg-type]  # a Dataset has a length
        batch = default_collate(samples)
    every = run.train.accumulate
    iterations = sorted({every, max(every, int(run.train.total_iter) // every * every)})

    def attempt(small: dict[str, Any]) -> None:
        for iteration in iterations:
            model.feed_data(small)
            # not optimize_parameters: whoever counts iterations there (a profiler, a hook) counts those of the training
            with model.random_stream:
                model._train_one_iteration(iteration)
            model.guard.allowed = 1_000_000  # what a step makes of the weights is the training's to judge
            output = model.output
        gt = model.batch.get("gt")
        if isinstance(output, Tensor) and gt is not None and output.dim() == 4 and output.shape != gt.shape:
            # losses broadcast one channel to three without a word
            raise OptionError(
                f"network_g: its output has the shape {tuple(output.shape)}, and gt has {tuple(gt.shape)}: compare its "
                "channels, and its factor with scale."
            )

    _on_small_ones(attempt, batch, None, lambda error, given: blame_iteration(model, run, given, error))


def _on_small_ones(
    attempt: Callable[[dict[str, Any]], None],
    batch: dict[str, Any],
    largest: int | None,
    blame: Callable[[Exception, dict[str, Any]], None],
) -> None:
    """Try on small patches; what fails there is tried on the true ones, and only that counts.

    Args:
        attempt: What is tried.
        batch: What the loader gives.
        largest: The side of the largest image that is tried; None has no limit.
        blame: Raises in the name of the option that is at fault.
    """
    small = _cut(batch, _SMALL)
    try:
        attempt(small)
        return
    except Exception as error:
        first = error
    whole = batch if largest is None else _cut(batch, largest)
    if _shapes(whole) == _shapes(small):
        if isinstance(first, PluginError):
            raise first
        blame(first, whole)
        return
    try:
        attempt(whole)
    except PluginError:
        raise
    except Exception as error:
        blame(error, whole)


def _cut(batch: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return the batch with every image and map cut to one small patch, in pixels of ``lq``."""
    lq = batch.get("lq")
    if not isinstance(lq, Tensor) or lq.dim() < 3:
        return dict(batch)
    height, width = lq.shape[-2:]
    rows, columns = _side(height, limit), _side(width, limit)
    cut = {}
    for name, value in batch.items():
        if isinstance(value, Tensor) and value.dim() >= 3 and value.shape[-2] % height == value.shape[-1] % width == 0:
            factor = value.shape[-1] // width
            value = value[..., : rows * factor, : columns * factor]
        cut[name] = value
    return cut


def _side(length: int, limit: int) -> int:
    return length if length <= limit + _UNIT // 2 else limit - limit % _UNIT + length % _UNIT


def _shapes(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value.shape) for name, value in batch.items() if isinstance(value, Tensor)}


class _One(Dataset):
    """One sample, as a validation set."""

    def __init__(self, sample: Any, opt: Any) -> None:
        self.sample, self.opt = sample, opt

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self.sample


def _validate(model: Any, dataset: Any, phase: str) -> None:
    """Restore and measure one image."""
    with blamed(f"datasets.{phase}", "its first sample cannot be made", DataError):
        sample = dataset[0]
        default_collate([sample])

    def attempt(small: dict[str, Any]) -> None:
        loader = DataLoader(_One(small, dataset.opt), batch_size=1)
        model.nondist_validation(loader, 0, None, save_img=model.val_settings.save_img)

    def blame(error: Exception, given: dict[str, Any]) -> None:
        model.feed_data(default_collate([given]))
        shape = tuple(model.lq.shape)
        try:
            model.test()
        except Exception as problem:
            raise OptionError(f"datasets.{phase}: an input of shape {shape} fails: {words(problem)}") from error
        images = images_of(model.output, model.lq, model.batch.get("gt"))
        for name, options in (model.val_settings.metrics or {}).items():
            try:
                measure_image(images, options)
            except Exception as problem:
                raise OptionError(f"val.metrics.{name}: this metric fails: {words(problem)}") from error
        raise OptionError(f"datasets.{phase}: validation fails: {words(error)} (in {place(error)}).") from error

    _on_small_ones(attempt, sample, _LARGEST, blame)
