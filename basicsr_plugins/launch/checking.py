"""Check an option file before BasicSR makes a folder: names, types, folders, networks, labels.

Files that use nothing of ours are left alone. What is found is one ``PluginError`` that starts with the YAML path.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import CheckpointError, OptionError, one_of
from basicsr_plugins.core.options import check_call, parse
from basicsr_plugins.core.random_state import preserved_random_state
from basicsr_plugins.training.inference import Restorer
from basicsr_plugins.training.settings import LoggerSettings, PathSettings

__all__ = ["check_options", "check_run", "uses_ours"]

#: Keys of the top level, beside ``network_*``.
TOP_LEVEL = (
    "name", "model_type", "scale", "num_gpu", "manual_seed", "datasets", "path", "train", "val", "logger",
    "dist_params", "find_unused_parameters", "plugins", "use_dp",
    # written by BasicSR
    "dist", "rank", "world_size", "auto_resume", "is_train", "root_path",
)  # fmt: skip


def check_options(opt: Mapping[str, Any]) -> None:
    """Check the options of a run that uses something of ours.

    Args:
        opt: The dictionary that BasicSR parsed.

    Raises:
        PluginError: The first thing that is wrong.
    """
    model_name = opt.get("model_type")
    datasets = opt.get("datasets") or {}
    for phase, options in datasets.items():
        _check_dataset(options, f"datasets.{phase}")
    models = registration.provided("model")
    model = models.get(_our_name("model", model_name))
    if model is None:
        if uses_ours(opt):
            registration.lookup("model", model_name, "model_type")
        elif not _is_stock("model", model_name):
            _hint_at_ours(model_name, models)
        return
    _check_sections(opt, model)
    with preserved_random_state():
        networks = {name: _build(opt, name) for name in model.network_names if _present(opt, model, name)}
        model.check_recipe(dict(opt), networks)


def check_run(opt: Mapping[str, Any]) -> None:
    """Check what ``check_options`` checks, and then what only a whole run needs: loaders, optimizers.

    Raises:
        PluginError: The first thing that is wrong.
    """
    check_options(opt)
    model = registration.provided("model").get(_our_name("model", opt.get("model_type")))
    if model is None:
        return
    _check_phases(opt)
    for name in model.trained(dict(opt)) if opt.get("is_train") else ():
        if not opt["train"].get(f"optim_{name}"):
            raise OptionError(f"train.optim_{name}: this option is required to train net_{name}.")


def _check_sections(opt: Mapping[str, Any], model: Any) -> None:
    sections: Mapping[str, type] = getattr(model, "sections", {})  # what a recipe has beside the stock sections
    for key in opt:
        if key not in TOP_LEVEL and key not in sections and not key.startswith("network_"):
            raise OptionError(f"{key}: {one_of(key, [*TOP_LEVEL[:14], *sections, *_networks_of(model)], 'option')}")
    for key, schema in sections.items():
        parse(schema, opt.get(key) or {}, key)
    networks = _networks_of(model)
    for key in opt:
        if key.startswith("network_") and key not in networks:
            raise OptionError(f"{key}: {one_of(key, networks, 'network of ' + str(opt['model_type']))}")
    if opt.get("is_train"):
        parse(model.Settings, opt.get("train") or {}, "train")
        parse(LoggerSettings, opt.get("logger") or {}, "logger")
        _check_training_parts(opt["train"], model)
        _check_progressive(opt)
    val = parse(model.ValSettings, opt.get("val") or {}, "val")
    if val.tile is not None:
        Restorer(nn.Identity(), tile=val.tile, tile_overlap=val.tile_overlap)
    _check_metrics(val.metrics or {})
    per_network = [
        f"{prefix}{name}"
        for name in model.network_names
        for prefix in ("pretrain_network_", "param_key_", "strict_load_")
    ]
    paths = opt.get("path") or {}
    known = [field for field in PathSettings.__dataclass_fields__]  # noqa: C416
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


def _check_progressive(opt: Mapping[str, Any]) -> None:
    from basicsr_plugins.training.progressive import ProgressivePatches

    if opt["train"].get("progressive"):
        ProgressivePatches(opt["train"]["progressive"]).check(opt["datasets"]["train"], opt.get("scale", 1))


def _check_training_parts(train: Mapping[str, Any], model: Any) -> None:
    from basicsr_plugins.negatives.ingredient import check_spn
    from basicsr_plugins.training.optimisation import check_optimizer, check_scheduler

    for key, value in train.items():
        if key.startswith("optim_") and value:
            check_optimizer(value, f"train.{key}")
        elif key == "scheduler" and value:
            check_scheduler(value, "train.scheduler")
        elif key == "compile" and isinstance(value, Mapping):
            check_call(torch.compile, value, "train.compile")
        elif key == "spn_opt" and value is not None:
            if not model.takes_spn:
                raise OptionError(f"train.spn_opt: {model.__name__} does not train net_g, so it has no history.")
            check_spn(value)
        elif key.endswith("_opt") and isinstance(value, Mapping) and "type" in value:
            _check_loss(value, f"train.{key}")
    for name, value in (train.get("extra_losses") or {}).items():
        _check_loss(value, f"train.extra_losses.{name}")


def _check_loss(options: Any, where: str) -> None:
    if not isinstance(options, Mapping) or "type" not in options:
        raise OptionError(f"{where}: a loss needs a `type` and its arguments, got {options!r}.")
    loss = registration.lookup("loss", options["type"], f"{where}.type")
    check_call(loss, {key: value for key, value in options.items() if key != "type"}, where)


def _check_metrics(metrics: Mapping[str, Any]) -> None:
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


def _arguments(function: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, value in inspect.signature(function).parameters.items() if value.kind in kinds]


def _check_dataset(options: Any, where: str) -> None:
    if not isinstance(options, Mapping) or "type" not in options:
        raise OptionError(f"{where}.type: this option is required.")
    ours = registration.provided("dataset")
    dataset = ours.get(_our_name("dataset", options["type"]))
    if dataset is None:
        if not _is_stock("dataset", options["type"]):
            registration.lookup("dataset", options["type"], f"{where}.type")
        return
    if "name" not in options:
        raise OptionError(f"{where}.name: this option is required. It is the data set's name in the log.")
    dataset.check_options(dict(options), where)


def _build(opt: Mapping[str, Any], name: str) -> nn.Module:
    """Build one network on the CPU, so that its constructor's complaints come before training."""
    where = f"network_{name}"
    options = dict(opt[where])
    if "type" not in options:
        raise OptionError(f"{where}.type: this option is required.")
    network_class = registration.lookup("arch", options.pop("type"), f"{where}.type")
    try:
        return network_class(**check_call(network_class, options, where))
    except OptionError as error:
        text = str(error)
        raise OptionError(text if text.startswith(where) else f"{where}: {text}") from None
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # a stock network's own words
        raise OptionError(f"{where}: {network_class.__name__} cannot be built: {error}") from error


def _present(opt: Mapping[str, Any], model: Any, name: str) -> bool:
    if not opt.get(f"network_{name}"):
        raise OptionError(
            f"network_{name}: {opt['model_type']} needs this network; give its `type` and arguments. "
            f"{one_of(f'network_{name}', [key for key in opt if key.startswith('network_')], 'key')}"
        )
    # a network whose arguments are only known once another one is there is left to check_recipe
    return name not in getattr(model, "completed_networks", ())


def _check_file(path: Any, where: str) -> None:
    import os

    if not os.path.isfile(os.path.expanduser(str(path))):
        folder = os.path.dirname(os.path.expanduser(str(path))) or "."
        near = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        close = difflib.get_close_matches(os.path.basename(str(path)), near, n=3)
        hint = f" {folder} holds {', '.join(close or near[:5]) or 'nothing'}." if os.path.isdir(folder) else ""
        raise CheckpointError(f"{where}: there is no file {path!r}.{hint}")


def _networks_of(model: Any) -> list[str]:
    return [f"network_{name}" for name in model.network_names]


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
        if any(isinstance(user, Mapping) and user.get("type") in ours for user in users):
            return True
    return False


def _hint_at_ours(name: Any, models: Mapping[str, Any]) -> None:
    """Complain about an unknown model only where it looks like one of ours; anything else is BasicSR's to report."""
    if difflib.get_close_matches(str(name), list(models), n=1, cutoff=0.7):
        registration.lookup("model", name, "model_type")
