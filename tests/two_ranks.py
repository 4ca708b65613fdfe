"""Two gloo processes, for the tests of what distributed training must keep equal."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import torch

TESTS = Path(__file__).parent


def run_script(script: Path, folder: Path, *arguments: str) -> list[Path]:
    """Run ``script FOLDER ARGUMENTS`` once per rank and return the files that the ranks leave in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    command = [sys.executable, str(script), str(folder), *arguments]
    processes = [
        subprocess.Popen(
            command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    output = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(output)
    return [folder / f"rank{rank}.pt" for rank in (0, 1)]


def fork(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """Return what ``work(rank)`` gives on each rank; the ranks' generators differ, as BasicSR seeds them."""
    context = multiprocessing.get_context("fork")  # a spawned process would import everything again
    results = context.Queue()

    def on_a_rank(rank: int) -> None:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
        torch.manual_seed(rank)
        results.put((rank, work(rank)))
        torch.distributed.destroy_process_group()

    processes = [context.Process(target=on_a_rank, args=(rank,)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=100) for _ in processes)
    for process in processes:
        process.join(60)
    return [found[0], found[1]]
