"""What ``--model`` may be: a file of weights, a run's folder, an adapter, or ABAIR's adapters with an estimator."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Optional, Union

import torch
from torch import nn

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters import AdapterFolder, BlendedNetwork, find_adapters, fingerprint
from basicsr_plugins.adapters.folder import CONFIG
from basicsr_plugins.adapters.modes import check_classes
from basicsr_plugins.adapters.rule import BlendRule
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import parse
from basicsr_plugins.core.safe_yaml import load_yaml
from basicsr_plugins.hub.cache import WEIGHT_SUFFIXES
from basicsr_plugins.restore.names import find_named
from basicsr_plugins.restore.packaged import PACKAGED, packaged_model
from basicsr_plugins.training.run_files import numbered_files

__all__ = ["Model", "find_model"]

PathLike = Union[str, Path]


@dataclass(frozen=True)
class Model:
    """A network that is ready to restore.

    Args:
        network: In eval mode, on the CPU; a ``BlendedNetwork`` where several adapters are blended per image.
        label: What to call it in messages.
        identity: Changes with any weight.
        estimator: Says which degradations are in an image; only beside a ``BlendedNetwork``.
        rule: What becomes of the estimator's answer.
        file: Where the network's weights, or those of the adapters' base, come from.
    """

    network: nn.Module
    label: str
    identity: str
    estimator: Optional[nn.Module] = None
    rule: BlendRule = field(default_factory=BlendRule)
    file: Optional[Path] = None

    @property
    def adapters(self) -> list[str]:
        """The names of the blended adapters; empty for a plain network."""
        return list(self.network.names) if isinstance(self.network, BlendedNetwork) else []


def find_model(
    where: Optional[PathLike] = None, base: Optional[PathLike] = None, estimator: Optional[PathLike] = None
) -> Model:
    """Return the model that a path means.

    Args:
        where: A file of weights of ours or a published one; the folder of a run (its ``models`` with ``net_g_latest``,
            else the best, else the newest); a folder of ``save_pretrained``; an adapter folder; a folder of adapter
            folders; a folder with ``base.*``, ``adapters`` and ``estimator.*``, as the packaged model is one; a name
            that ``basicsr-plugins models`` lists; ``hf://user/repository``. None: the packaged model.
        base: The base network of adapters, where the recorded one is not at its place any more.
        estimator: The weights of the ``DegradationEstimator`` that weighs several adapters.

    Raises:
        OptionError: There is nothing there, or more is needed than was given.
        CheckpointError: A file is broken, or of a network that is not known.
    """
    path = packaged_model() if where is None else Path(where).expanduser()
    if where is not None and not path.exists():
        named = find_named(where, _close(path))
        if isinstance(named, tuple):
            _unused("the name of a published model", base=base, estimator=estimator)
            network, label, weights = named
            return Model(network, f"{type(network).__name__} of {label}", fingerprint(network), file=weights)
        path = named
    if path.is_file():
        _unused("a file of weights", base=base, estimator=estimator)
        return _plain(path)
    folder = path / "models" if (path / "models").is_dir() else path
    if checkpoints.folder_network(folder) is not None:
        _unused("the folder of one network", base=base, estimator=estimator)
        return _plain(folder)
    if (folder / CONFIG).is_file():
        return _adapted(find_adapters(folder), base, None, path)
    whole = _first(folder.glob("base.*"))
    if whole is not None and (folder / "adapters").is_dir():
        estimator = estimator or _first(folder.glob("estimator.*"))
        model = _adapted(find_adapters(folder / "adapters"), base or whole, estimator, path)
        rule = folder / "blend.yml"
        return replace(model, rule=_rule(load_yaml(rule), str(rule))) if rule.is_file() else model
    file = _network_file(folder)
    if file is not None:
        _unused(f"a run's folder ({file})", base=base, estimator=estimator)
        return _plain(file)
    adapter = _newest_adapter(folder)
    if adapter is not None:
        return _adapted(find_adapters(adapter), base, None, path)
    own_estimator = _newest(folder, "net_e_")
    if next(folder.glob(f"*/{CONFIG}"), None) is not None:
        return _adapted(find_adapters(folder), base, estimator or own_estimator, path)
    if own_estimator is not None:
        return _blend_run(path, base, estimator or own_estimator)
    files = sorted(each for each in folder.iterdir() if each.suffix.lower() in WEIGHT_SUFFIXES)
    if len(files) == 1:
        return _plain(files[0])
    held = f"It holds {', '.join(each.name for each in files[:5])}: name one of them." if files else ""
    raise OptionError(
        f"--model: {path} holds no model: no net_g_*.pth, no adapter ({CONFIG}), no folders of adapters. {held}".strip()
    )


def _plain(path: Path) -> Model:
    network = checkpoints.load(path)
    return Model(network, f"{type(network).__name__} of {path}", fingerprint(network), file=path)


def _adapted(
    folders: Mapping[str, AdapterFolder],
    base: Optional[PathLike],
    estimator: Optional[PathLike],
    path: Path,
    key: Optional[str] = None,
) -> Model:
    first = next(iter(folders.values()))
    recorded: Mapping[str, Any] = first.provenance.get("base", {})
    if base is None:
        if not recorded.get("path"):
            raise OptionError(f"--base: {first.path} does not say on which checkpoint it was trained; give it.")
        base, key = _found(recorded["path"], first.path), recorded.get("key", "params")
        if base is None:
            raise OptionError(
                f"--base: {first.path} was trained on {recorded['path']}, which is not there any more; say where it is."
            )
    network = _base_network(base, key, first)
    blended = BlendedNetwork(network, folders, where=str(base)).eval()
    label = f"{type(network).__name__} of {base} with {', '.join(folders)} of {path}"
    if path == PACKAGED:
        label = f"the built-in model ({', '.join(folders)})"
    identity = fingerprint(blended) + fingerprint(_factors(blended))
    if len(folders) == 1:
        return Model(blended.merged(torch.ones(1)).eval(), label, identity, file=Path(base))
    if estimator is None:
        return Model(blended, label, identity, file=Path(base))
    judge = checkpoints.load(estimator)
    classes = getattr(judge, "classes", None)
    if not isinstance(classes, list) or not hasattr(judge, "maps"):
        raise OptionError(f"--estimator: {estimator} holds a {type(judge).__name__}, no DegradationEstimator.")
    try:
        check_classes(classes, list(folders))
    except OptionError as error:
        raise OptionError(f"--estimator {estimator}: {error}") from None
    return Model(blended, label, identity + fingerprint(judge), judge, file=Path(base))


def _base_network(base: PathLike, key: Optional[str], adapter: AdapterFolder) -> nn.Module:
    """Return the base; without a recorded entry, the one of ``params`` and ``params_ema`` that the adapter knows."""
    if key is not None or adapter.base is None:
        return checkpoints.load(base, key)
    networks = [checkpoints.load(base, entry) for entry in ("params", "params_ema")]
    return next((each for each in networks if fingerprint(each) == adapter.base), networks[0])


def _factors(blended: BlendedNetwork) -> dict[str, torch.Tensor]:
    layers = blended.layers().items()
    return {f"{name}.{part}": getattr(layer, part) for name, layer in layers for part in ("lora_A", "lora_B")}


def _network_file(folder: Path) -> Optional[Path]:
    """Return ``net_g_latest``, else the best, else the newest."""
    return _first(folder.glob("net_g_latest.*")) or _first(folder.glob("net_g_best*")) or _newest(folder, "net_g_")


def _newest(folder: Path, prefix: str) -> Optional[Path]:
    latest = _first(folder.glob(f"{prefix}latest.*"))
    if latest is not None:
        return latest
    for suffix in WEIGHT_SUFFIXES:
        numbered = numbered_files(folder, prefix, suffix)
        if numbered:
            return numbered[max(numbered)]
    return _first(folder.glob(f"{prefix}best*"))


def _newest_adapter(folder: Path) -> Optional[Path]:
    """Return what a run of ``AdapterModel`` saved last."""
    numbered = numbered_files(folder, "adapter_", "")
    names = [folder / "adapter_latest", *(numbered[iteration] for iteration in sorted(numbered, reverse=True))]
    return next((each for each in names if (each / CONFIG).is_file()), None)


def _first(files: Iterable[Path]) -> Optional[Path]:
    known = [file for file in files if file.suffix in WEIGHT_SUFFIXES]
    return min(known, key=lambda file: (WEIGHT_SUFFIXES.index(file.suffix), file.name)) if known else None


def _blend_run(run: Path, base: Optional[PathLike], estimator: PathLike) -> Model:
    """Return the model of a run of ``AdapterBlendModel``: its option file names the base and the adapters."""
    root = run.parent if run.name == "models" else run
    for file in sorted(root.glob("*.y*ml")):
        opt = load_yaml(file)
        blend, paths = opt.get("blend"), opt.get("path") or {}
        if not isinstance(blend, Mapping) or not blend.get("adapters"):
            continue
        folders = {**_adapters_near(blend["adapters"], root), **_adapters_near(blend.get("add") or {}, root)}
        recorded = None if base is not None else paths.get("pretrain_network_g")
        found = None if recorded is None else _found(recorded, root)
        key = paths.get("param_key_g", "params") if found else None
        model = _adapted(folders, base or found, estimator, run, key)
        return replace(model, rule=_rule(blend, f"{file}: blend"))
    raise OptionError(
        f"--model: {run} holds an estimator, and no option file that says which adapters it weighs. Name the folder of "
        f"adapters: --model FOLDER --estimator {estimator}."
    )


def _rule(blend: Mapping[str, Any], where: str) -> BlendRule:
    known = [each.name for each in fields(BlendRule)]
    return parse(BlendRule, {key: value for key, value in blend.items() if key in known}, where)


def _adapters_near(given: Union[str, Mapping[str, str]], near: Path) -> dict[str, AdapterFolder]:
    if isinstance(given, Mapping):
        return find_adapters({name: str(_found(folder, near) or folder) for name, folder in given.items()})
    return find_adapters(_found(given, near) or given)


def _found(recorded: PathLike, near: Path) -> Optional[Path]:
    """Return a recorded path: as it is, else seen from a folder above ``near`` (the run may have been moved)."""
    path = Path(recorded).expanduser()
    return next((each for each in (path, *(up / path for up in near.resolve().parents)) if each.exists()), None)


def _unused(what: str, **given: Optional[PathLike]) -> None:
    for name, value in given.items():
        if value is not None:
            raise OptionError(f"--{name}: it belongs to adapters, but --model is {what}.")


def _close(path: Path) -> str:
    if not path.parent.is_dir():
        return f" The folder {path.parent} does not exist either."
    close = difflib.get_close_matches(path.name, [each.name for each in path.parent.iterdir()], n=1, cutoff=0.5)
    return f" Did you mean {path.parent / close[0]}?" if close else ""
