"""tools/train_builtin.sh: stages, what is skipped, what goes on, limits; a stand-in takes the place of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "train_builtin.sh"
ADAPTERS = ("rain", "noise", "haze", "low_light", "blur", "jpeg", "snow")
#: Writes down its arguments, then leaves the files that the real command would leave.
STAND_IN = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
name=none
for word in "$@"; do case "$word" in name=*) name="${word#name=}" ;; esac; done
case "$*" in
*pack_builtin.py\\ base*) mkdir -p "$(dirname "$4")"; echo base > "$4" ;;
*\\ train\\ *)
    [ "$name" != "${HANGS:-}" ] || sleep 30
    [ "$name" != "${FAILS:-}" ] || { echo broken; exit 1; }
    mkdir -p "experiments/$name/models"
    case "$name" in
    builtin_base) touch "experiments/$name/models/net_g_latest.pth" ;;
    builtin_adapter_*) mkdir -p "experiments/$name/models/adapter_latest" ;;
    builtin_blend) touch "experiments/$name/models/net_e_latest.pth" ;;
    esac
    ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def work(tmp_path):
    (tmp_path / "datasets" / "builtin" / "train").mkdir(parents=True)
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    return tmp_path


def run(work: Path, *stages: str, **variables: str) -> tuple[int, str, list[str]]:
    """Return exit status, output, and the calls of Python."""
    calls = work / "calls"
    calls.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHON": str(work / "python"), "CALLS": str(calls), **variables}
    done = subprocess.run(
        ["bash", str(SCRIPT), str(work), *stages],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines() if calls.exists() else []


def test_the_stages_come_in_order_each_on_the_rounded_base_and_a_second_run_skips_them(work):
    status, output, calls = run(work, "base adapters estimator test", SET="manual_seed=3")
    assert status == 0, output
    kinds = [next(kind for kind in ("pack_builtin.py", " train ", " test ") if kind in call).strip() for call in calls]
    assert kinds == ["train", "pack_builtin.py", *["train"] * 8, "test"]
    trained = [call.split("name=")[1].split()[0] for call in calls if " train " in call]
    assert trained == ["builtin_base", *(f"builtin_adapter_{name}" for name in ADAPTERS), "builtin_blend"]
    for call in calls:
        assert "pack_builtin.py" in call or "manual_seed=3" in call
        assert " train " not in call or "--auto_resume" in call
    base = "path.pretrain_network_g=experiments/builtin_base/models/base.safetensors"
    assert all(base in call for call in calls[2:])
    for name in ADAPTERS:
        for call in calls[-2:]:
            assert f"blend.adapters.{name}=experiments/builtin_adapter_{name}/models/adapter_latest" in call
    assert run(work, "base", "adapters", "estimator")[2] == []


def test_one_adapter_alone_and_the_settings_of_a_gpu(work):
    status, output, calls = run(work, "base", "adapter:haze", DEVICE="gpu", ITER_ADAPTERS="70")
    assert status == 0, output
    assert "train.precision=bf16" in calls[0]
    assert "name=builtin_adapter_haze" in calls[-1]
    assert "train.total_iter=70 train.scheduler.T_max=70" in calls[-1]
    assert len(calls) == 3


def test_a_stage_whose_time_is_up_is_no_failure_and_newer_checkpoints_serve(work):
    models = work / "experiments" / "builtin_base" / "models"
    models.mkdir(parents=True)
    for iteration in (500, 1500, 1000):
        (models / f"net_g_{iteration}.pth").touch()
    status, output, calls = run(work, "base", "adapter:rain", HANGS="builtin_base", LIMIT_BASE="1")
    assert status == 0, output
    assert "its time was up" in output
    assert "models/net_g_1500.pth" in calls[1], "the newest checkpoint is rounded"


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_an_adapter_that_fails_fails_the_run_and_shows_its_log(work, jobs):
    run(work, "base")
    status, output, _ = run(work, "adapters", FAILS="builtin_adapter_blur", JOBS=jobs)
    assert status == 1
    assert "broken" in output
    assert "builtin_adapter_blur stopped with status 1" in output
    assert "an adapter failed" in output


@pytest.mark.parametrize(
    ("stages", "variables", "message"),
    [
        (["bases"], {}, "unknown stage 'bases'; allowed: base adapters"),
        (["adapters"], {}, "there is no base yet: run the stage 'base' first"),
        (["base", "estimator"], {}, "there is no adapter for rain yet"),
        (["base"], {"DEVICE": "tpu"}, "DEVICE=tpu: cpu or gpu"),
        (["base"], {"ITER_BASE": "fit"}, "'fit' needs the limit of its stage in seconds"),
    ],
)
def test_mistakes_are_named(work, stages, variables, message):
    status, output, _ = run(work, *stages, **variables)
    assert status == 1
    assert message in output


def test_without_photographs_the_command_that_writes_them_is_named(work):
    shutil.rmtree(work / "datasets")
    status, output, calls = run(work)
    assert (status, calls) == (1, [])
    assert "builtin_photographs.py datasets/builtin --debian DIR" in output


def test_help_names_every_variable(work):
    text = subprocess.run(["bash", str(SCRIPT), "--help"], capture_output=True, text=True, check=True).stdout
    for word in ("FOLDER", "STAGES", "DEVICE", "JOBS", "LIMIT_BASE", "ITER_BASE", "SET", "PROBE", "THREADS"):
        assert word in text
