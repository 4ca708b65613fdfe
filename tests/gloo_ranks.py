"""One rank of the distributed tests: ``python gloo_ranks.py FOLDER`` under RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.

Everything that the tests compare is computed in one start and written to ``FOLDER/rank<RANK>.pt``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tiny_runs
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

ITERATIONS = 4
#: on the next one, a rounding of 1e-6 tips ReLUs of the tiny classifier over (in one process, too)
FEWER = {("dcpt", "default"): 2, ("dcpt", "accumulate"): 2, ("dcpt", "channels_last"): 1}
#: name -> options of ``train``
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {"ema_decay": 0.9},
    "accumulate": {"accumulate": 2, "grad_clip": 0.1},
    "channels_last": {"channels_last": True},
}
SGD = {"type": "SGD", "lr": 0.005, "momentum": 0.9}
METRICS = {"psnr": {"type": "calculate_psnr", "crop_border": 0}, "ssim": {"type": "calculate_ssim", "crop_border": 0}}


class Images(Dataset):
    """Five images with names that clash, one of them with the name that another one's clash asks for."""

    names = ("a", "b", "a", "a_2", "A")

    def __init__(self, name: str = "five") -> None:
        self.opt = {"name": name, "phase": "val"}

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = tiny_runs.make_batch(1, 16, seed=index)
        path = f"folder{index}/{self.names[index]}.png"
        return {
            "lq": batch["lq"][0], "gt": batch["gt"][0], "degradation": index % 2, "lq_path": path, "gt_path": path,
        }  # fmt: skip


def share(batch: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """Return a rank's part of a batch."""
    count = len(batch["lq"]) // world
    return {key: value[rank * count : (rank + 1) * count] for key, value in batch.items()}


def freeze_statistics(model: Any) -> None:
    """Put BatchNorm layers into eval mode: their statistics are those of a rank's own batch by design."""
    for network in model.networks.values():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def steps(folder: Path, recipe: str, variant: str, rank: int, world: int) -> dict[str, Any]:
    """Train a recipe on this rank's part of every batch of four."""
    # plain SGD: Adam would blow the rounding of a gradient near zero up to a whole step
    optimizers = {key: SGD for key in tiny_runs.option_file(folder, recipe)["train"] if key.startswith("optim_")}
    model = tiny_runs.make_model(
        folder, recipe, seed=rank, dist=world > 1, rank=rank, world_size=world,
        train={**optimizers, **VARIANTS[variant]},
    )  # fmt: skip
    freeze_statistics(model)
    logs = []
    for iteration in range(1, FEWER.get((recipe, variant), ITERATIONS) + 1):
        batch = share(tiny_runs.make_batch(4, seed=iteration), rank, world)
        logs += tiny_runs.train(model, [iteration], batch)
    return {"weights": tiny_runs.weights(model), "logs": [dict(log) for log in logs]}


def validation(folder: Path, rank: int, world: int) -> dict[str, Any]:
    """Validate five images and save them."""
    model = tiny_runs.make_model(
        folder, "dcpt", dist=world > 1, rank=rank, world_size=world, val={"metrics": METRICS, "val_freq": 1}
    )
    model.validation(DataLoader(Images(), batch_size=1), 1, None, save_img=True)
    model.validation(DataLoader(Images("more"), batch_size=1), 1, None, save_img=True)
    return dict(model.metric_results)


def unused_parameters(rank: int) -> list[Any]:
    """Average gradients of parameters that both ranks, one rank, or none used."""
    from basicsr_plugins.training import distributed

    parameters = [nn.Parameter(torch.ones(2, 3).t()) for _ in range(3)]
    parameters[0].grad = torch.full((3, 2), rank + 1.0)
    if rank == 1:
        parameters[1].grad = torch.arange(6.0).view(3, 2)
    distributed.average_gradients(parameters)
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in parameters]


def broken_on_one_rank(folder: Path, rank: int) -> str:
    """Let rank 1 meet a NaN; every rank must stop."""
    from basicsr_plugins.core.errors import TrainingError

    model = tiny_runs.make_model(folder, dist=True, rank=rank, world_size=2)
    batch = tiny_runs.make_batch(seed=rank)
    if rank == 1:
        batch["lq"][0, 0, 0, 0] = float("nan")
    try:
        tiny_runs.train(model, [1], batch)
    except TrainingError as error:
        return str(error)
    return "no error"


def resume(folder: Path, rank: int) -> list[str]:
    """Save in the middle of an accumulation window and go on from there; return what differs from going straight."""
    changes = {"dist": True, "rank": rank, "world_size": 2, "train": {"accumulate": 3, "ema_decay": 0.9}}
    straight = tiny_runs.make_model(folder, "dcpt", **changes)

    def go(model: Any, iterations: Any) -> None:
        for iteration in iterations:
            tiny_runs.train(model, [iteration], tiny_runs.make_batch(seed=10 * iteration + rank))

    go(straight, range(1, 5))
    straight.save(0, 4)
    torch.distributed.barrier()
    go(straight, range(5, 7))
    models = folder / "experiments" / "tiny" / "models"
    paths = {f"pretrain_network_{name}": str(models / f"net_{name}_4.pth") for name in ("g", "dc")}
    resumed = tiny_runs.make_model(folder, "dcpt", seed=5, path=paths, **changes)
    state = torch.load(folder / "experiments/tiny/training_states/4.state", weights_only=True)
    resumed.resume_training(state)
    go(resumed, range(5, 7))
    # each rank keeps BatchNorm statistics of its own between validations; the checkpoint holds rank 0's
    found = tiny_runs.differences(tiny_runs.weights(straight), tiny_runs.weights(resumed))
    return [key for key in found if not (rank and ("running_" in key or "_ema" in key))]


def main(folder: Path) -> None:
    """Compute everything."""
    import basicsr_plugins
    from basicsr_plugins._startup import _basicsr_plugins_bootstrap as bootstrap

    bootstrap.install_compat()
    basicsr_plugins.register()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo")
    np.random.seed(0)  # noqa: NPY002
    results = {
        "steps": {
            (recipe, variant): steps(folder, recipe, variant, rank, world)
            for recipe in tiny_runs.RECIPES
            for variant in VARIANTS
        },
        "validation": validation(folder, rank, world),
        "unused": unused_parameters(rank),
        "broken": broken_on_one_rank(folder, rank),
        "resume": resume(folder, rank),
    }
    torch.save(results, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
