"""One rank of ``test_pretraining_on_two_ranks``: ``python gloo_pretraining.py FOLDER FILE ...``.

Trains every option file two iterations and validates; the folder holds what ``Shrunk`` generates, one for each rank.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]


def run(shrunk: Any, name: str, rank: int) -> dict[str, Any]:
    """Return the weights after two iterations, the logs and the accuracy."""
    from basicsr_plugins.core.registration import lookup

    opt = shrunk.options(name)
    opt.update(dist=True, rank=rank, world_size=2)
    torch.manual_seed(rank)  # the ranks begin with other weights; the model has to make them equal
    model = lookup("model", opt["model_type"])(opt)
    dataset = lookup("dataset", opt["datasets"]["train"]["type"])(opt["datasets"]["train"])
    batches = iter(DataLoader(dataset, batch_size=2, shuffle=True))
    logs = []
    for iteration in (1, 2):
        model.feed_data(next(batches))
        model.optimize_parameters(iteration)
        logs.append(dict(model.get_current_log()))
    val = next(options for phase, options in opt["datasets"].items() if phase != "train")
    model.validation(DataLoader(lookup("dataset", val["type"])(val), batch_size=1), 2, None, save_img=False)
    return {
        "weights": {
            f"{key}.{name}": value.detach().clone()
            for key, network in model.networks.items()
            for name, value in network.state_dict().items()
        },
        "logs": logs,
        "accuracy": model.metric_results["accuracy"],
        "judged": int(model.confusion.sum()),
        "images": len(lookup("dataset", val["type"])(val)),
    }


def main(folder: Path, names: list[str]) -> None:
    """Run every file and write what was found."""
    from basicsr_plugins._startup import _basicsr_plugins_bootstrap as bootstrap

    bootstrap.install_compat()
    import shrinking

    import basicsr_plugins

    basicsr_plugins.register()
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    own = folder / f"rank{rank}"
    own.mkdir()
    shrunk = shrinking.Shrunk(own)
    torch.save({name: run(shrunk, name, rank) for name in names}, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
