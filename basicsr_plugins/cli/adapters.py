"""``basicsr-plugins adapters list|merge|blend DIR``: look at adapter folders, fold them into a plain checkpoint."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import basicsr_plugins
from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.core.safe_yaml import load_yaml

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to ``basicsr-plugins``."""
    text = "list adapter folders; merge one, or a weighted blend of several, into a plain checkpoint"
    parser = subparsers.add_parser("adapters", help=text, description=text)
    commands = parser.add_subparsers(dest="adapters_command", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="every adapter below a folder, and the base it belongs to")
    listing.add_argument("dir", type=Path, help="folder")
    listing.set_defaults(func=_list)
    merge = commands.add_parser("merge", help="fold one adapter into its base for good")
    merge.add_argument("dir", type=Path, help="adapter folder")
    merge.add_argument("--weight", type=float, default=1.0, help="factor of its change (default 1)")
    merge.set_defaults(func=_merge)
    blend = commands.add_parser("blend", help="fold several adapters into their base, each with a constant weight")
    blend.add_argument("dir", type=Path, help="folder of adapter folders")
    blend.add_argument(
        "--weights", nargs="+", required=True, metavar="NAME=W", help="for example rain=0.7 haze=0.3, or average, sum"
    )
    blend.set_defaults(func=_blend)
    for command in (merge, blend):
        command.add_argument("--base", type=Path, help="checkpoint of the base (default: the recorded one)")
        command.add_argument("--key", help="entry of the checkpoint: params, params_ema (default: the recorded one)")
        command.add_argument("-opt", type=Path, help="option file with network_g, for adapters that are no plain LoRA")
        command.add_argument("-o", "--output", type=Path, required=True, help="net_g_*.pth or .safetensors to write")
    return parser


def _list(args: argparse.Namespace) -> None:
    from basicsr_plugins.adapters.folder import CONFIG, adapter_folders, read_folder

    folders = [read_folder(path) for path in adapter_folders(args.dir, f"**/{CONFIG}")]
    if not folders:
        raise CheckpointError(f"{args.dir}: there is no adapter here; expected folders that hold {CONFIG}.")
    rows = [("name", "method", "rank", "layers", "parameters", "base", "trained on", "folder")]
    for folder in folders:
        tensors, base = folder.tensors(), folder.provenance.get("base", {})
        layers = {name.rsplit(f".{folder.method}_", 1)[0] for name in tensors}
        count = sum(tensor.numel() for tensor in tensors.values())
        trained_on = f"{base.get('network', '?')} {base.get('path', '')}".strip()
        rank = "-" if folder.rank is None else str(folder.rank)
        path = str(folder.path.relative_to(args.dir))
        known = folder.base or "unknown"
        rows.append((folder.name, folder.method, rank, str(len(layers)), f"{count:,d}", known, trained_on, path))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _merge(args: argparse.Namespace) -> None:
    from basicsr_plugins.adapters.folder import read_folder

    folder = read_folder(args.dir)
    _write(args, {folder.name: folder}, {folder.name: args.weight})


def _blend(args: argparse.Namespace) -> None:
    from basicsr_plugins.adapters.folder import find_adapters

    adapters = find_adapters(args.dir)
    _write(args, adapters, _weights(args.weights, list(adapters)))


def _weights(given: list[str], names: list[str]) -> dict[str, float]:

    if given in (["sum"], ["average"]):
        return dict.fromkeys(names, 1.0 if given == ["sum"] else 1 / len(names))
    weights: dict[str, float] = {}
    for entry in given:
        name, _, value = entry.partition("=")
        try:
            weights[name] = float(value)
        except ValueError:
            raise OptionError(
                f"--weights {entry}: expected NAME=NUMBER (names: {', '.join(names)}), or 'sum' or 'average' alone."
            ) from None
    return weights


def _write(args: argparse.Namespace, adapters: dict[str, Any], weights: dict[str, float]) -> None:
    from basicsr_plugins import checkpoints
    from basicsr_plugins.adapters.merge import merge_adapters

    recorded = next(iter(adapters.values())).provenance.get("base", {})
    path, key = args.base or recorded.get("path"), args.key or recorded.get("key", "params")
    if not path:
        raise OptionError("--base: the adapter does not say which checkpoint it was trained on; give it.")
    content = checkpoints.read_checkpoint(path)
    state = checkpoints.find_weights(content, key, path, checkpoints.WRAPPERS)
    merged = merge_adapters(state, adapters, weights, _network(args.opt), where=f"{path} [{key}]")
    checkpoints.write_network_file(args.output, {"params": merged}, checkpoints.recorded_network(path, content))
    print(f"{args.output}: {path} with " + ", ".join(f"{weight:g} x {name}" for name, weight in weights.items()))


def _network(path: Path | None) -> Any:
    if path is None:
        return None
    options = dict(load_yaml(path).get("network_g") or {})
    if "type" not in options:
        raise OptionError(f"{path}: network_g.type: this option is required.")
    with contextlib.suppress(DependencyError):
        basicsr_plugins.register()  # so that BasicSR's own networks are known too, where it is installed
    return registration.lookup("arch", options.pop("type"), "network_g.type")(**options).eval()
