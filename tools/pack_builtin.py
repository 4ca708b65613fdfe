"""Put the built-in model together: base, adapters and estimator in half precision, at most 6 MB.

    python tools/pack_builtin.py base IN.pth OUT.safetensors    round a base, before adapters are trained on it
    python tools/pack_builtin.py all EXPERIMENTS OUT            base.safetensors, estimator.safetensors, adapters/

An adapter knows its base by the values of the weights. So the base is rounded first, and the adapters are trained on
what will be shipped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters.fingerprint import fingerprint
from basicsr_plugins.adapters.folder import CONFIG, read_folder, write_folder
from basicsr_plugins.core.errors import CheckpointError, PluginError

#: Bytes of the whole model.
LIMIT = 6_000_000
ADAPTERS = ("rain", "noise", "haze", "low_light", "blur", "jpeg", "snow")
#: Mixtures are in no adapter's training: where no degradation stands out, the base does better than half adapters.
BLEND = "threshold: 0.6\nkeep_clean: true\n"
#: Where tools/train_builtin.sh leaves the rounded base.
BASE = Path("builtin_base", "models", "base.safetensors")
WEIGHTS = "adapter_model.safetensors"


def halved(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Return a state dict whose floating-point tensors are float16.

    Raises:
        CheckpointError: A value is beyond what float16 holds, or not finite.
    """
    small = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    for key, value in small.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {key} has values beyond float16 ({state[key].abs().max():g} at most).")
    return small


def write_half(source: Path, target: Path) -> Path:
    """Write a network's averaged weights, where it has some, as float16 ``.safetensors`` with the network's options.

    Raises:
        CheckpointError: The file is no checkpoint, or float16 does not hold it.
    """
    content: Any = checkpoints.read_checkpoint(source)
    entry = "params_ema" if isinstance(content, dict) and "params_ema" in content else None
    weights = checkpoints.find_weights(content, entry, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.write(target, halved(weights, source), checkpoints.recorded_network(source, content))
    return target


def pack(experiments: Path, target: Path) -> list[Path]:
    """Write the whole model below ``target`` and return its files.

    Args:
        experiments: The folder ``experiments`` of tools/train_builtin.sh.
        target: A new or empty folder.

    Raises:
        CheckpointError: A part is missing, an adapter is of another base, or the model is larger than ``LIMIT``.
    """
    if target.exists() and any(target.iterdir()):
        raise CheckpointError(f"{target} is not empty; choose another folder.")
    base = checkpoints.read(experiments / BASE)
    mine = fingerprint(base)
    folders = {}
    for name in ADAPTERS:
        folders[name] = experiments / f"builtin_adapter_{name}" / "models" / "adapter_latest"
        theirs = read_folder(folders[name]).base
        if theirs != mine:
            raise CheckpointError(
                f"{folders[name]} was trained on a base with the fingerprint {theirs}; that of {experiments / BASE} "
                f"is {mine}. Train the adapter again."
            )
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(experiments / BASE, target / "base.safetensors")
    write_half(experiments / "builtin_blend" / "models" / "net_e_latest.pth", target / "estimator.safetensors")
    (target / "blend.yml").write_text(BLEND)
    for name, folder in folders.items():
        _pack_adapter(folder, target / "adapters" / name)
    files = sorted(file for file in target.rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files)
    if size > LIMIT:
        raise CheckpointError(f"{target}: the model has {size:,d} bytes; at most {LIMIT:,d} are allowed.")
    return files


def _pack_adapter(folder: Path, target: Path) -> None:
    """Write an adapter with its weights in half precision, and with the checksums of the files as they are then."""
    small = halved(checkpoints.read(folder / WEIGHTS), folder / WEIGHTS)

    def write(fresh: Path) -> None:
        shutil.copyfile(folder / CONFIG, fresh / CONFIG)
        checkpoints.write_safetensors(small, fresh / WEIGHTS, {"format": "pt"})

    write_folder(target, write, read_folder(folder).provenance)


def main() -> int:
    """Run the command."""
    text, _, usage = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=text, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("base", "all"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.what == "base":
            files = [write_half(arguments.source, arguments.target)]
        else:
            files = pack(arguments.source, arguments.target)
    except PluginError as error:
        print(f"pack_builtin: {error}", file=sys.stderr)
        return 1
    for file in files:
        print(f"{file.stat().st_size:>10,d}  {file}")
    print(f"{sum(file.stat().st_size for file in files):>10,d}  in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
