"""Where a training goes on: the newest state that is whole, together with every file that it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters.folder import read_folder
from basicsr_plugins.core.atomic import remove_leftovers
from basicsr_plugins.core.errors import CheckpointError
from basicsr_plugins.launch.options import DrawnSeed
from basicsr_plugins.training import distributed, run_files

__all__ = ["find_resume_state", "load_resume_state", "network_files"]


def find_resume_state(opt: dict[str, Any]) -> Path | None:
    """Return the state that a run is to go on from: the newest whole one whose networks are whole, or None.

    Each newer one that is broken is named in one line, with the reason.

    Args:
        opt: Complete options; ``auto_resume`` looks into ``path.training_states``.

    Raises:
        CheckpointError: There are states, and every one is broken.
    """
    if not opt["auto_resume"]:
        return Path(opt["path"]["resume_state"]) if opt["path"].get("resume_state") else None
    states = run_files.numbered_files(opt["path"]["training_states"], "", ".state")
    if states and distributed.rank() == 0:
        remove_leftovers(opt["path"]["models"])  # a kill may have moved an adapter folder aside
    reasons = []
    for iteration in sorted(states, reverse=True):
        try:
            _check(opt, states[iteration])
        except CheckpointError as error:
            reasons.append(f"{states[iteration].name} is passed over: {' '.join(str(error).split())}")
        else:
            for reason in reasons:
                _say(f"auto_resume: {reason}")
            if reasons:
                _say(f"auto_resume: the newest whole state is taken, {states[iteration]}.")
            return states[iteration]
    if reasons:
        raise CheckpointError(
            f"--auto_resume: all {len(reasons)} states in {opt['path']['training_states']} are broken, so nothing can "
            "be resumed. Restore one of them, or start anew: leave --auto_resume out, or give the run another name.\n  "
            + "\n  ".join(reasons)
        )
    return None


def network_files(opt: dict[str, Any], state: dict[str, Any]) -> list[Path]:
    """Return what a training state needs beside itself: what our recipes recorded, or stock's file of each network."""
    names = (state.get("basicsr_plugins") or {}).get("networks")
    if names is None:
        names = [f"net_{key[len('network_') :]}_{state['iter']}.pth" for key in opt if key.startswith("network_")]
    return [Path(opt["path"]["models"], name) for name in names]


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Return the training state to go on from, and put its place and its seed into the options; None for a new run.

    Raises:
        CheckpointError: The state is broken, or one of its networks is missing.
    """
    from basicsr.utils import check_resume

    path = _chosen_by_rank_0(opt)
    if path is None:
        return None
    state = _read_state(path)
    missing = [str(file) for file in network_files(opt, state) if not file.exists()]
    if missing:
        raise CheckpointError(
            f"path.resume_state: {path} needs the networks of its iteration, and there is no {', '.join(missing)}. "
            "BasicSR looks for them in the experiment's own models folder: keep the name of the experiment."
        )
    drawn = (state.get("basicsr_plugins") or {}).get("manual_seed")
    if isinstance(opt["manual_seed"], DrawnSeed) and drawn is not None:
        from basicsr.utils import set_random_seed

        opt["manual_seed"] = drawn
        set_random_seed(drawn + opt["rank"])
    opt["path"]["resume_state"] = str(path)
    check_resume(opt, state["iter"])
    return state


def _chosen_by_rank_0(opt: dict[str, Any]) -> Path | None:
    """Let one rank read and put back what is there, and all take its answer, an error too."""
    found: Path | CheckpointError | None = None
    if distributed.rank() == 0:
        try:
            found = find_resume_state(opt)
        except CheckpointError as error:
            found = error
    found = distributed.gather_objects([found])[0]
    if isinstance(found, CheckpointError):
        raise found
    return found


def _read_state(path: Path) -> dict[str, Any]:
    state = checkpoints.read_checkpoint(path)
    if not isinstance(state, dict) or not {"iter", "epoch", "optimizers", "schedulers"} <= set(state):
        raise CheckpointError(f"{path} is no training state of BasicSR.")
    return state


def _check(opt: dict[str, Any], path: Path) -> None:
    """Read a state and all that it needs, to the last byte."""
    for file in network_files(opt, _read_state(path)):
        if file.is_dir():
            read_folder(file).tensors()
        else:
            checkpoints.read_checkpoint(file)


def _say(text: str) -> None:
    # before the pipeline has set up the logger, which asking for it would do without its file
    if distributed.rank() == 0:
        sys.stderr.write(f"basicsr-plugins: {text}\n")
