"""Start a training run, kill it, look at what it left, start it again: ``python kill_driver.py FOLDER KILLS SEED``.

One process imports everything and forks each run, so that thirty starts cost seconds. Prints JSON lines.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import tiny_runs
import torch

NAME = "killed"


def fork(folder: Path, *arguments: str) -> int:
    """Run ``basicsr-plugins train`` in a child process; returns its number."""
    child = os.fork()
    if child:
        return child
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 99
    try:
        code = tiny_runs.run_command("train", "-opt", folder / f"{NAME}.yml", "--auto_resume", *arguments)
    finally:
        os._exit(code)


def newest(root: Path) -> int:
    """Return the newest iteration with a state, 0 without one."""
    numbers = [int(path.stem) for path in (root / "training_states").glob("*.state") if path.stem.isdigit()]
    return max(numbers, default=0)


def broken_files(root: Path) -> list[str]:
    """Return the checkpoints that do not load."""
    broken = []
    for path in [*root.rglob("*.pth"), *root.rglob("*.state")]:
        try:
            torch.load(path, weights_only=True)
        except Exception as error:
            broken.append(f"{path.name}: {error}")
    return broken


def resumed_from(root: Path, since: float) -> int:
    """Return the iteration that the newest run says it goes on from; 0 for a new run, -1 where it did not get there."""
    logs = [path for path in root.glob("train_*.log") if path.stat().st_mtime >= since]
    text = "".join(path.read_text() for path in sorted(logs, key=lambda path: path.stat().st_mtime)[-1:])
    found = re.findall(r"Resuming training from epoch: \d+, iter: (\d+)", text)
    if found:
        return int(found[-1])
    return 0 if "Start training from epoch: 0, iter: 0" in text else -1


def time_to_first_state(folder: Path, root: Path) -> float:
    """Start a run, kill it once it has saved a state, and return how many seconds that took."""
    started = time.time()
    child = fork(folder)
    while newest(root) < 1 and time.time() < started + 60:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.time() - started


def kill_somewhere(folder: Path, root: Path, draw: random.Random, how: str, longest: float) -> dict[str, object]:
    """Start a run and kill it at a random moment, ``longest`` seconds on at most, or once a file is being written."""
    before, started = newest(root), time.time()
    # one log file a second: stock names them by the time
    for log in root.glob("train_*.log"):
        log.unlink()
    child = fork(folder)
    wait = draw.uniform(0.05, longest)
    deadline = started + wait + (0 if how == "moment" else 2)
    while time.time() < deadline:
        if how == "saving" and time.time() > started + wait and any(root.rglob("*.incomplete")):
            break
        time.sleep(0.0005 if how == "saving" else 0.01)
    writing = [path.name for path in root.rglob("*.incomplete")]
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return {
        "before": before, "after": newest(root), "resumed": resumed_from(root, started - 1), "writing": writing,
        "killed": os.WIFSIGNALED(status), "broken": broken_files(root),
    }  # fmt: skip


def main(folder: Path, kills: int, seed: int) -> None:
    """Kill, then finish the run, then make the same run without a kill."""
    import basicsr_plugins
    from basicsr_plugins._startup import _basicsr_plugins_bootstrap as bootstrap

    bootstrap.install_compat()
    basicsr_plugins.register()
    import basicsr.test
    import basicsr.train  # noqa: F401

    os.chdir(folder)
    tiny_runs.write_images(folder / "images")
    options = tiny_runs.option_file(
        folder / "images", name=NAME, logger={"save_checkpoint_freq": 1, "print_freq": 1000},
        train={"total_iter": 1_000_000, "keep_last": 2, "ema_decay": 0.9, "safetensors": True},
        datasets={"train": {"dataset_enlarge_ratio": 10}},
    )  # fmt: skip
    tiny_runs.write_options(folder / f"{NAME}.yml", options)
    root, draw = folder / "experiments" / NAME, random.Random(seed)
    # where other processes load the machine, the moments move along, so that enough runs get to save something
    longest = max(0.9, 2 * time_to_first_state(folder, root))
    for number in range(kills):
        how = "saving" if number % 2 else "moment"
        print(json.dumps(kill_somewhere(folder, root, draw, how, longest)), flush=True)
    last = newest(root) + 3
    codes = []
    for arguments in ([], ["name=straight", "logger.save_checkpoint_freq=1000000"]):
        child = fork(folder, "--set", f"train.total_iter={last}", *arguments)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps({"last": last, "codes": codes, "output": (folder / "output.txt").read_text()[-2000:]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
