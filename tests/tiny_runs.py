"""Training runs of a few hundred parameters, for the tests of the engine: options, batches, models, whole runs.

A new recipe joins every test that runs over ``RECIPES`` by one entry.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

NETWORK = {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 1}  # a stock network
LOSS = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
ADAM = {"type": "Adam", "lr": 1e-3}
DEGRADATIONS = [{"type": "GaussianNoise", "sigma": 25}, {"type": "Haze"}]

#: What each recipe adds to the option file of a plain run: sections are merged, ``~`` removes.
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"model_type": "RestorationModel"},
    "dcpt": {
        "model_type": "DCPTModel",
        "network_dc": {"type": "DegradationClassifier", "preset": "slim", "num_classes": 2},
        "train": {"optim_dc": ADAM, "feature_layers": ["body.3", "body.1"]},
    },
    "spn": {
        "model_type": "SPNModel",
        "train": {
            "spn_opt": {
                "loss": {"type": "SPNLoss", "features": "pixel", "loss_weight": 0.1},
                "negatives": {"steps": [1, 2], "decay": 0.1},
                "guard": {"warmup_iter": 0},
            }
        },
    },
    "adapter": {
        "model_type": "AdapterModel",
        "adapter": {"name": "noise", "peft_opt": {"target": "all", "r": 2, "lora_alpha": 2}},
        "path": {"pretrain_network_g": "BASE"},
    },
}


def write_images(folder: Path, count: int = 4, size: int = 24, seed: int = 0) -> Path:
    """Write small random photographs."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = cv2.resize(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8), (size, size))
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def merge(options: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``options`` with ``changes`` merged in, section by section."""
    result = copy.deepcopy(options)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return copy.deepcopy(result)


def option_file(images: Path, recipe: str = "plain", **changes: Any) -> dict[str, Any]:
    """Return the content of an option file of a tiny run on ``images``."""
    data = {
        "type": "DegradationDataset", "dataroot_gt": str(images), "gt_size": 16, "degradations": DEGRADATIONS,
    }  # fmt: skip
    loader = {"num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 1}
    plain = {
        "name": "tiny",
        "scale": 1,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {"train": {"name": "tiny_train", **data, **loader}},
        "network_g": NETWORK,
        "path": {},
        "train": {"total_iter": 4, "optim_g": ADAM, "pixel_opt": LOSS},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 1000},
    }
    options = merge(merge(plain, RECIPES[recipe]), changes)
    if isinstance(options["path"], dict) and options["path"].get("pretrain_network_g") == "BASE":
        options["path"]["pretrain_network_g"] = str(write_base(images.parent / "base.pth"))
    return options


def validation_set(images: Path) -> dict[str, Any]:
    """Return the section of a validation set on ``images``."""
    return {"name": "v", "type": "DegradationDataset", "dataroot_gt": str(images), "degradations": DEGRADATIONS}


def write_base(path: Path) -> Path:
    """Write weights of ``NETWORK``, for recipes that start from some."""
    from basicsr_plugins.checkpoints import save
    from basicsr_plugins.core import registration
    from basicsr_plugins.core.random_state import preserved_random_state
    from basicsr_plugins.launch.register import register_all

    if not path.exists():
        register_all()
        with preserved_random_state():
            torch.manual_seed(7)
            arguments = {key: value for key, value in NETWORK.items() if key != "type"}
            network = registration.lookup("arch", NETWORK["type"])(**arguments)
        save({"params": network.state_dict()}, path)
    return path


def write_options(path: Path, options: dict[str, Any]) -> Path:
    """Write an option file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def parsed_options(folder: Path, recipe: str = "plain", is_train: bool = True, **changes: Any) -> dict[str, Any]:
    """Return options as BasicSR hands them to a model, without any file."""
    options = option_file(folder / "images", recipe)
    options.update(dist=False, rank=0, world_size=1, auto_resume=False, is_train=is_train, root_path=str(folder))
    root = folder / "experiments" / "tiny"
    options["path"] = {
        **options["path"],
        "experiments_root": str(root),
        "models": str(root / "models"),
        "training_states": str(root / "training_states"),
        "log": str(root),
        "visualization": str(root / "visualization"),
    }
    options["datasets"]["train"]["phase"] = "train"
    return merge(options, changes)


def make_model(folder: Path, recipe: str = "plain", is_train: bool = True, seed: int = 0, **changes: Any) -> Any:
    """Build a recipe's model with fixed initial weights."""
    import basicsr_plugins

    basicsr_plugins.register()
    from basicsr.models import build_model

    torch.manual_seed(seed)
    return build_model(parsed_options(folder, recipe, is_train, **changes))


def make_batch(n: int = 2, size: int = 12, seed: int = 1, classes: int = 2) -> dict[str, Any]:
    """Return a batch as a data set of ours gives it."""
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(n, 3, size, size, generator=generator)
    lq = (gt + 0.1 * torch.randn(gt.shape, generator=generator)).clamp(0, 1)
    return {
        "lq": lq,
        "gt": gt,
        "degradation": torch.arange(n) % classes,
        "lq_path": [f"lq_{seed}_{index}.png" for index in range(n)],
        "gt_path": [f"gt_{seed}_{index}.png" for index in range(n)],
    }


def train(model: Any, iterations: Any, batch: Any = None, **batch_options: Any) -> list[dict[str, float]]:
    """Run iterations as stock's loop does; each has its own batch unless one is given. Returns the logs."""
    logs = []
    for current_iter in iterations:
        model.update_learning_rate(current_iter, warmup_iter=model.opt["train"].get("warmup_iter", -1))
        model.feed_data(batch if batch is not None else make_batch(seed=current_iter, **batch_options))
        model.optimize_parameters(current_iter)
        logs.append(model.get_current_log())
    return logs


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of all parameters and buffers of all networks and averages."""
    networks = {**model.networks, **{f"{name}_ema": average for name, average in model.averages.items()}}
    return {
        f"{name}.{key}": value.detach().clone()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Return the paths at which two nested values are not equal to the last bit."""
    if isinstance(first, torch.Tensor):
        same = isinstance(second, torch.Tensor) and torch.equal(first, second)
        return [] if same else [path]
    if isinstance(first, dict):
        if not isinstance(second, dict) or list(map(str, first)) != list(map(str, second)):
            return [path or "keys"]
        return [place for key in first for place in differences(first[key], second[key], f"{path}/{key}")]
    if isinstance(first, (list, tuple)):
        if not isinstance(second, (list, tuple)) or len(first) != len(second):
            return [path]
        return [p for i, (a, b) in enumerate(zip(first, second)) for p in differences(a, b, f"{path}/{i}")]
    return [] if repr(first) == repr(second) else [path]


def run_command(*arguments: str) -> int:
    """Run ``basicsr-plugins ...`` in this process and return its exit code."""
    from basicsr_plugins.cli.main import main

    return main([str(argument) for argument in arguments])
