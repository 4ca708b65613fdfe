"""Check an option file before BasicSR makes a folder: names, types, folders, networks, labels.

Files that use nothing of ours are left alone. What is wrong becomes one ``PluginError`` that starts with the YAML path;
what is right stays in the sections as the settings that everything else reads.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from torch import nn

from basicsr_plugins.core import plugins, registration
from basicsr_plugins.core.checked import CheckedSection
from basicsr_plugins.core.errors import CheckpointError, OptionError, PluginError, one_of
from basicsr_plugins.core.options import check_call, check_value, parse
from basicsr_plugins.core.random_state import preserved_random_state
from basicsr_plugins.data.plan import plan_of
from basicsr_plugins.launch.blame import blamed, words
from basicsr_plugins.launch.loop_checks import check_logger, check_name, check_phases
from basicsr_plugins.launch.part_checks import check_metrics, check_training_parts
from basicsr_plugins.launch.rehearsal import rehearse, rehearse_data
from basicsr_plugins.training.inference import Restorer
from basicsr_plugins.training.run_options import RunOptions
from basicsr_plugins.training.settings import STOCK, LoggerSettings, PathSettings, TrainSettings, ValSettings

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
    if uses_ours(opt):
        _refuse_other_keys(opt)
    model_name = str(opt.get("model_type"))
    datasets = opt.get("datasets") or {}
    for phase, options in datasets.items():
        datasets[phase] = _checked_dataset(options, f"datasets.{phase}")
    recipe = _recipe(opt)
    if recipe is None:
        if uses_ours(opt):
            _refuse_ignored(opt, registration.lookup("model", model_name, "model_type"))
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
        check_training_parts(run, recipe)
    if run.val.tile is not None:
        Restorer(nn.Identity(), tile=run.val.tile, tile_overlap=run.val.tile_overlap)
    check_metrics(run.val.metrics or {}, needs_direction=run.train is not None and run.train.save_best)
    with preserved_random_state():
        networks: dict[str, nn.Module] = {}
        for name in recipe.used(run):
            with blamed(f"network_{'g' if networks else name}", f"network_{name} cannot be fitted to it", OptionError):
                options = recipe.network_options(run, name, networks)  # may run an image through those that are there
            networks[name] = _build(options, f"network_{name}")
        with blamed(f"model_type {opt['model_type']}", "the recipe cannot be checked", OptionError):
            recipe.check_recipe(run, networks)
    return run


def check_run(opt: dict[str, Any], here: bool = True, rehearsed: bool = True) -> Optional[RunOptions]:
    """Check what ``check_options`` checks, then what only a whole run needs, and rehearse it.

    Args:
        opt: See ``check_options``.
        here: Whether the run is to start on this machine; another one may have GPUs.
        rehearsed: Make an iteration as well.

    Raises:
        PluginError: The first thing that is wrong.
    """
    run = check_options(opt)
    if run is None and not uses_ours(opt):
        return None
    check_name(opt.get("name"), "name")
    check_phases(opt, here)
    check_logger(opt)
    recipe = _recipe(opt)
    if run is not None and run.train is not None:
        for name in recipe.trained(run):
            if not getattr(run.train, f"optim_{name}"):
                raise OptionError(f"train.optim_{name}: this option is required to train net_{name}.")
    if not rehearsed:
        return run
    data = rehearse_data(opt, ours_alone=run is None)
    if run is not None:
        rehearse(run, recipe, data)
    return run


def _resolve_paths(opt: Mapping[str, Any]) -> None:
    """Register what stands as ``package.module:Class``, which BasicSR's builders look up, under any model."""
    train, metrics = _mapping(opt.get("train")), _mapping(_mapping(opt.get("val")).get("metrics"))
    places = [
        *(("arch", key, value) for key, value in opt.items() if str(key).startswith("network_")),
        *(("loss", f"train.{key}", value) for key, value in train.items() if str(key).endswith("_opt")),
        *(("metric", f"val.metrics.{key}", value) for key, value in metrics.items()),
    ]
    for kind, where, value in places:
        if isinstance(value, Mapping) and plugins.is_path(value.get("type")):
            registration.lookup(kind, value["type"], f"{where}.type")


def _refuse_other_keys(section: Any, where: str = "") -> None:
    """Refuse keys that are no text: YAML reads ``on``, ``yes``, ``1`` and ``~`` as something else."""
    items: Iterable[tuple[Any, Any]] = section.items() if isinstance(section, Mapping) else ()
    if isinstance(section, (list, tuple)):
        items = ((str(place), item) for place, item in enumerate(section))
    for key, value in items:
        if not isinstance(key, str):
            raise OptionError(
                f"{where or 'the option file'}: the key {key!r} is {type(key).__name__}, expected text; write it in "
                "quotes."
            )
        _refuse_other_keys(value, f"{where}.{key}" if where else key)


def _refuse_ignored(opt: Mapping[str, Any], model: Any) -> None:
    """Refuse options of our recipes under a model of BasicSR's own, which would pass over them without a word."""
    if not str(getattr(model, "__module__", "")).startswith("basicsr."):
        return
    for section, schema in (("train", TrainSettings), ("val", ValSettings)):
        for key in _mapping(opt.get(section)):
            field = schema.__dataclass_fields__.get(key)
            if field is not None and field.metadata.get("source") != STOCK:
                raise OptionError(
                    f"{section}.{key}: {opt['model_type']} is BasicSR's own model and passes over this option of "
                    "basicsr_plugins. Set model_type: RestorationModel, or remove the option."
                )


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
        if key.startswith("param_key_"):
            check_value(value, Optional[str], f"path.{key}")
        if key.startswith("strict_load_"):
            check_value(value, bool, f"path.{key}")
        if key.startswith("pretrain_network_") and value is not None and not paths.get("resume_state"):
            _check_file(value, f"path.{key}")


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
    with blamed(where, "it cannot be read", OptionError):
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
    except PluginError:
        raise
    except Exception as error:  # a stock network's own words
        raise OptionError(f"{where}: {network_class.__name__} cannot be built: {words(error)}") from error


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
    if _our_name("model", str(opt.get("model_type"))) in registration.provided("model"):
        return True
    networks = [value for key, value in opt.items() if str(key).startswith("network_") and isinstance(value, Mapping)]
    for kind, users in (("arch", networks), ("dataset", _mapping(opt.get("datasets")).values())):
        ours = registration.provided(kind)
        if any(isinstance(user, Mapping) and str(user.get("type")) in ours for user in users):
            return True
    return False


def _hint_at_ours(name: Any, models: Mapping[str, Any]) -> None:
    """Complain about an unknown model only where it looks like one of ours; anything else is BasicSR's to report."""
    if difflib.get_close_matches(str(name), list(models), n=1, cutoff=0.7):
        registration.lookup("model", name, "model_type")
