"""Check an option file before BasicSR makes a folder: names, types, folders, networks, labels.

Files that use nothing of ours are left alone. What is wrong becomes one ``PluginError`` that starts with the YAML path;
what is right stays in the sections as the settings that everything else reads.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping
from typing import Any, Optional

import torch
from torch import nn

from basicsr_plugins.core import plugins, registration
from basicsr_plugins.core.checked import CheckedSection
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError, PluginError, one_of
from basicsr_plugins.core.options import check_call, parse
from basicsr_plugins.core.random_state import preserved_random_state
from basicsr_plugins.data.plan import plan_of
from basicsr_plugins.metrics.direction import lower_is_better
from basicsr_plugins.negatives.ingredient import check_spn
from basicsr_plugins.training.inference import Restorer
from basicsr_plugins.training.optimisation import check_optimizer, check_scheduler
from basicsr_plugins.training.progressive import ProgressivePatches
from basicsr_plugins.training.run_options import RunOptions
from basicsr_plugins.training.settings import LoggerSettings, PathSettings

__all__ = ["check_options", "check_run", "uses_ours"]

#: Keys of the top level, beside ``network_*``.
TOP_LEVEL = (
    "name", "model_type", "scale", "num_gpu", "manual_seed", "datasets", "path", "train", "val", "logger",
    "dist_params", "find_unused_parameters", "imports", "plugins", "use_dp",
    # written by BasicSR
    "dist", "rank", "world_size", "auto_resume", "is_train", "root_path",
)  # fmt: skip


def check_options(opt: dict[str, Any]) -> Optional[RunOptions]:
    """Check the options of a run that uses something of ours, and leave in each section what was read from it.

    Args:
        opt: The dictionary that BasicSR parsed. Its sections become ``CheckedSection``, so that nothing parses twice.

    Returns:
        The checked options, None where the model is not ours.

    Raises:
        PluginError: The first thing that is wrong.
    """
    for kind in registration.KINDS:
        registration.provided(kind)  # plug-ins that were half loaded when BasicSR was imported are complete by now
    _resolve_paths(opt)
    model_name = str(opt.get("model_type"))
    datasets = opt.get("datasets") or {}
    for phase, options in datasets.items():
        datasets[phase] = _checked_dataset(options, f"datasets.{phase}")
    recipe = _recipe(opt)
    if recipe is None:
        if uses_ours(opt):
            registration.lookup("model", model_name, "model_type")
        elif not _is_stock("model", model_name):
            _hint_at_ours(model_name, registration.provided("model"))
        return None
    _check_keys(opt, recipe)
    schemas = {"val": recipe.ValSettings, **recipe.sections}
    if opt.get("is_train"):
        schemas.update(train=recipe.Settings, logger=LoggerSettings)
    for key, schema in schemas.items():
        if opt.get(key) is not None:
            opt[key] = CheckedSection(opt[key], parse(schema, opt[key], key))
    run: RunOptions = recipe.read_options(opt)
    if run.train is not None:
        _check_training_parts(run, recipe)
    if run.val.tile is not None:
        Restorer(nn.Identity(), tile=run.val.tile, tile_overlap=run.val.tile_overlap)
    _check_metrics(run.val.metrics or {}, needs_direction=run.is_train)
    with preserved_random_state():
        networks: dict[str, nn.Module] = {}
        for name in recipe.used(run):
            networks[name] = _build(recipe.network_options(run, name, networks), f"network_{name}")
        recipe.check_recipe(run, networks)
    return run


def check_run(opt: dict[str, Any]) -> Optional[RunOptions]:
    """Check what ``check_options`` checks, and then what only a whole run needs: loaders, optimizers.

    Raises:
        PluginError: The first thing that is wrong.
    """
    run = check_options(opt)
    if run is None:
        return None
    _check_phases(opt)
    for name in _recipe(opt).trained(run) if run.train is not None else ():
        if not getattr(run.train, f"optim_{name}"):
            raise OptionError(f"train.optim_{name}: this option is required to train net_{name}.")
    return run


def _resolve_paths(opt: Mapping[str, Any]) -> None:
    """Register what stands as ``package.module:Class``, which BasicSR's builders look up, under any model."""
    train, metrics = _mapping(opt.get("train")), _mapping(_mapping(opt.get("val")).get("metrics"))
    places = [
        *(("arch", key, value) for key, value in opt.items() if key.startswith("network_")),
        *(("loss", f"train.{key}", value) for key, value in train.items() if str(key).endswith("_opt")),
        *(("metric", f"val.metrics.{key}", value) for key, value in metrics.items()),
    ]
    for kind, where, value in places:
        if isinstance(value, Mapping) and plugins.is_path(value.get("type")):
            registration.lookup(kind, value["type"], f"{where}.type")


def _mapping(section: Any) -> Mapping[str, Any]:
    return section if isinstance(section, Mapping) else {}


def _recipe(opt: Mapping[str, Any]) -> Any:
    """Return the class of a recipe on our engine, None for any other model."""
    recipe = _provided_one("model", opt.get("model_type"), "model_type")
    return recipe if hasattr(recipe, "check_recipe") else None


def _provided_one(kind: str, name: Any, where: str) -> Any:
    """Return what is provided under a name, or under ``package.module:Class``; None where nothing is."""
    if name is None:
        return None
    if not isinstance(name, str):
        raise OptionError(f"{where}: expected the name of a {kind}, got {name!r}.")
    if plugins.is_path(name):
        return registration.lookup(kind, name, where)
    return registration.provided(kind).get(_our_name(kind, name))


def _check_keys(opt: Mapping[str, Any], recipe: Any) -> None:
    """Refuse unknown keys at the top level and in ``path``, and files that are not there."""
    networks = [f"network_{name}" for name in recipe.network_names]
    for key in opt:
        if key.startswith("network_") and key not in networks:
            raise OptionError(f"{key}: {one_of(key, networks, 'network of ' + str(opt['model_type']))}")
        if key not in TOP_LEVEL and key not in recipe.sections and key not in networks:
            raise OptionError(f"{key}: {one_of(key, [*TOP_LEVEL[:15], *recipe.sections, *networks], 'option')}")
    per_network = [
        f"{prefix}{name}"
        for name in recipe.network_names
        for prefix in ("pretrain_network_", "param_key_", "strict_load_")
    ]
    paths = opt.get("path") or {}
    known = list(PathSettings.__dataclass_fields__)
    for key, value in paths.items():
        if key not in known and key not in per_network:
            raise OptionError(f"path.{key}: {one_of(key, [*per_network, *known], 'option')}")
        if key.startswith("pretrain_network_") and value is not None and not paths.get("resume_state"):
            _check_file(value, f"path.{key}")


def _check_phases(opt: Mapping[str, Any]) -> None:
    """Check the sections of ``datasets``, and what stock's loader takes from the training set without asking."""
    datasets = opt.get("datasets") or {}
    allowed = ("train", "val") if opt.get("is_train") else ("test", "val")
    for phase in datasets:
        if phase.split("_")[0] not in allowed:
            raise OptionError(f"datasets.{phase}: {one_of(phase.split('_')[0], allowed, 'phase')}")
    if not opt.get("is_train") or not datasets:  # no section at all is the parser's to report
        return
    if "train" not in datasets:
        raise OptionError("datasets.train: this section is required.")
    for key, least in (("batch_size_per_gpu", 1), ("num_worker_per_gpu", 0)):
        value = datasets["train"].get(key)
        if value is None:
            raise OptionError(f"datasets.train.{key}: this option is required.")
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise OptionError(f"datasets.train.{key}: expected a whole number of {least} or more, got {value!r}.")


def _check_training_parts(run: RunOptions, recipe: Any) -> None:
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


def _check_metrics(metrics: Mapping[str, Any], needs_direction: bool) -> None:
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


def _checked_dataset(options: Any, where: str) -> Any:
    """Check a data set, and return its section with the plan that it is built from."""
    if not isinstance(options, Mapping) or "type" not in options:
        raise OptionError(f"{where}.type: this option is required.")
    kind = _provided_one("dataset", options["type"], f"{where}.type")
    if kind is None:
        if not _is_stock("dataset", options["type"]):
            registration.lookup("dataset", options["type"], f"{where}.type")
        return options
    if "name" not in options:
        raise OptionError(f"{where}.name: this option is required. It is the data set's name in the log.")
    plan = plan_of(options, where)
    if plan is None:  # a data set of somebody else's that has none
        return options
    plan.check()
    return CheckedSection(options, plan)


def _build(options: dict[str, Any], where: str) -> nn.Module:
    """Build one network on the CPU, so that its constructor's complaints come before training."""
    network_class = registration.lookup("arch", options.pop("type"), f"{where}.type")
    try:
        return network_class(**check_call(network_class, options, where))
    except OptionError as error:
        text = str(error)
        raise OptionError(text if text.startswith(where) else f"{where}: {text}") from None
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # a stock network's own words
        raise OptionError(f"{where}: {network_class.__name__} cannot be built: {error}") from error


def _check_file(path: Any, where: str) -> None:
    if not os.path.isfile(os.path.expanduser(str(path))):
        folder = os.path.dirname(os.path.expanduser(str(path))) or "."
        near = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        close = difflib.get_close_matches(os.path.basename(str(path)), near, n=3)
        hint = f" {folder} holds {', '.join(close or near[:5]) or 'nothing'}." if os.path.isdir(folder) else ""
        raise CheckpointError(f"{where}: there is no file {path!r}.{hint}")


def _our_name(kind: str, name: Any) -> Any:
    """Return our own name of something that had to be registered under another one."""
    for ours, registered in registration.renamed(kind).items():
        if name == ours:
            return None  # that name is BasicSR's
        if name == registered:
            return ours
    return name


def _is_stock(kind: str, name: Any) -> bool:
    try:
        registration.lookup(kind, name)
    except OptionError:
        return False
    return True


def uses_ours(opt: Mapping[str, Any]) -> bool:
    """Whether an option file names a model, a network or a data set of ours."""
    if _our_name("model", opt.get("model_type")) in registration.provided("model"):
        return True
    networks = [value for key, value in opt.items() if key.startswith("network_") and isinstance(value, Mapping)]
    for kind, users in (("arch", networks), ("dataset", (opt.get("datasets") or {}).values())):
        ours = registration.provided(kind)
        if any(isinstance(user, Mapping) and str(user.get("type")) in ours for user in users):
            return True
    return False


def _hint_at_ours(name: Any, models: Mapping[str, Any]) -> None:
    """Complain about an unknown model only where it looks like one of ours; anything else is BasicSR's to report."""
    if difflib.get_close_matches(str(name), list(models), n=1, cutoff=0.7):
        registration.lookup("model", name, "model_type")
