"""Two gloo processes do what one process does on the joint batch."""

from __future__ import annotations

import os
from pathlib import Path

import gloo_ranks
import pytest
import tiny_runs
import torch
import two_ranks

from basicsr_plugins.training import distributed


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Return the folder and what rank 0 and rank 1 found."""
    folder = tmp_path_factory.mktemp("ranks")
    files = two_ranks.run_script(two_ranks.TESTS / "gloo_ranks.py", folder)
    return folder, [torch.load(file, weights_only=False) for file in files]


@pytest.mark.parametrize("variant", gloo_ranks.VARIANTS)
@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_two_ranks_take_the_step_of_the_joint_batch(ranks, tmp_path, recipe, variant):
    first, second = (results["steps"][recipe, variant] for results in ranks[1])
    assert tiny_runs.differences(first["weights"], second["weights"]) == []
    joint = gloo_ranks.steps(tmp_path, recipe, variant, 0, 1)
    for key, value in joint["weights"].items():
        torch.testing.assert_close(first["weights"][key], value, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k} {m}")
    for ours, theirs in zip(first["logs"], joint["logs"]):
        assert ours == pytest.approx(theirs, rel=1e-4)
    start = tiny_runs.weights(tiny_runs.make_model(tmp_path, recipe))
    moved = [key for key in start if key.startswith("g.") and not torch.equal(start[key], joint["weights"][key])]
    assert moved


def test_sharded_validation_gives_the_same_metrics_and_files(ranks, tmp_path):
    folder, results = ranks
    single = gloo_ranks.validation(tmp_path, 0, 1)
    assert set(single) >= {"psnr", "ssim", "accuracy"}
    for found in results:
        assert found["validation"] == single

    def saved(root: Path) -> dict[str, bytes]:
        root = root / "experiments" / "tiny" / "visualization"
        return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*.png"))}

    assert len({name.lower() for name in saved(tmp_path)}) == 10
    assert saved(folder) == saved(tmp_path)


def test_a_parameter_that_one_rank_used_counts_as_zero_on_the_other(ranks):
    for both, one, none in (results["unused"] for results in ranks[1]):
        assert torch.equal(both, torch.full((3, 2), 1.5))
        assert torch.equal(one, torch.arange(6.0).view(3, 2) / 2)
        assert none is None


def test_a_broken_loss_on_one_rank_stops_all(ranks):
    first, second = (results["broken"] for results in ranks[1])
    assert "a loss on another rank is not finite" in first
    assert "l_pix = nan" in second


def test_resuming_within_an_accumulation_window(ranks):
    assert [results["resume"] for results in ranks[1]] == [[], []]


def test_one_process_needs_no_group():
    assert (distributed.rank(), distributed.world_size(), distributed.is_distributed()) == (0, 1, False)
    assert distributed.gather_objects([1, 2]) == [1, 2]
    assert distributed.any_rank(True, torch.device("cpu")) is True


@pytest.mark.gpu
def test_nccl_averages_gradients_on_one_gpu_per_rank():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    torch.multiprocessing.spawn(_nccl_rank, (2,), nprocs=2)


def _nccl_rank(rank: int, world: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT="29613")
    torch.cuda.set_device(rank)
    torch.distributed.init_process_group("nccl")
    parameter = torch.nn.Parameter(torch.ones(4, 4, device="cuda"))
    parameter.grad = torch.full_like(parameter, rank + 1.0)
    distributed.average_gradients([parameter])
    assert torch.equal(parameter.grad, torch.full_like(parameter, 1.5))
    assert distributed.gather_objects([rank]) == [0, 1]
    torch.distributed.destroy_process_group()
