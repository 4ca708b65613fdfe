"""Auto-resume: each broken state in one line with its reason, on the way to the newest whole one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.core.errors import CheckpointError
from basicsr_plugins.launch.resume import find_resume_state


def options(folder: Path) -> dict:
    paths = {"models": str(folder / "models"), "training_states": str(folder / "states")}
    return {"auto_resume": True, "path": paths}


def write(folder: Path, iteration: int) -> None:
    ours = {"networks": [f"net_g_{iteration}.pth"]}
    state = {"iter": iteration, "epoch": 0, "optimizers": [], "schedulers": [], "basicsr_plugins": ours}
    checkpoints.save(state, folder / "states" / f"{iteration}.state")
    checkpoints.save({"params": {"a": torch.rand(2)}}, folder / "models" / f"net_g_{iteration}.pth")


def test_each_broken_state_is_one_line_with_its_reason(tmp_path, capsys):
    for iteration in (2, 4, 6, 8):
        write(tmp_path, iteration)
    assert find_resume_state(options(tmp_path)).name == "8.state"
    assert capsys.readouterr().err == ""
    (tmp_path / "states/8.state").write_bytes(b"")
    (tmp_path / "models/net_g_6.pth").unlink()
    broken = (tmp_path / "models/net_g_4.pth").read_bytes()
    (tmp_path / "models/net_g_4.pth").write_bytes(broken[: len(broken) // 2].ljust(len(broken), b"\0"))
    assert find_resume_state(options(tmp_path)).name == "2.state"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    for line, words in zip(
        lines, (("8.state", "it is empty"), ("6.state", "no such", "net_g_6"), ("4.state", "net_g_4"))
    ):
        assert all(word in line for word in words)
    assert lines[3].endswith("2.state.")


def test_a_run_whose_states_are_all_broken_does_not_start_anew(tmp_path, capsys):
    write(tmp_path, 2)
    (tmp_path / "states/2.state").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"(?s)all 1 states.*leave --auto_resume out.*2\.state is passed over"):
        find_resume_state(options(tmp_path))
    assert capsys.readouterr().err == ""  # all of it stands in the one error
