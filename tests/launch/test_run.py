"""`basicsr-plugins train|test`: whatever is wrong is one message, with nothing written; what is right runs."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_runs
import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters.folder import write_folder
from basicsr_plugins.core.errors import CheckpointError
from basicsr_plugins.launch import run as launcher

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a working directory with images, a degraded twin of each, and nothing else."""
    monkeypatch.chdir(tmp_path)
    tiny_runs.write_images(tmp_path / "images")
    tiny_runs.write_images(tmp_path / "lq", seed=1)
    return tmp_path


def content(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(folder: Path, capsys, options, *arguments: str, command: str = "train") -> str:
    """Run, and return the one message; nothing may have been written."""
    file = tiny_runs.write_options(folder / "x.yml", options)
    before = content(folder)
    code = tiny_runs.run_command(command, "-opt", file, *arguments)
    said = capsys.readouterr().err
    assert code == 1, said
    assert content(folder) == before
    assert said.count(f"basicsr-plugins {command}: ") == 1
    assert "Traceback" not in said
    return said


BAD_OPTIONS = [
    # wrong place or name
    ({"trian": {}}, "trian: unknown option 'trian'. Did you mean 'train'"),
    ({"network_q": {"type": "NAFNet"}}, "network_q: unknown network of RestorationModel"),
    (
        {"model_type": "RestorationModle"},
        "model_type: unknown model 'RestorationModle'. Did you mean 'RestorationModel'",
    ),
    ({"network_g": {"type": "NAFnet"}}, "network_g.type: unknown arch 'NAFnet'. Did you mean 'NAFNet'"),
    ({"network_g": {"num_feats": 4}}, "network_g.num_feats: unknown option 'num_feats'. Did you mean 'num_feat'"),
    ({"network_g": None}, "network_g: RestorationModel needs this network"),
    ({"train": {"pixel_op": {}}}, "train.pixel_op: unknown option 'pixel_op'. Did you mean 'pixel_opt'"),
    ({"train": {"pixel_opt": {"type": "L1Los"}}}, "train.pixel_opt.type: unknown loss 'L1Los'. Did you mean 'L1Loss'"),
    ({"train": {"pixel_opt": {"weight": 1}}}, "train.pixel_opt.weight: unknown option"),
    ({"train": {"extra_losses": {"l_x": {"type": "MSELos"}}}}, "train.extra_losses.l_x.type: unknown loss"),
    ({"train": {"extra_losses": {"l_x": 3}}}, "train.extra_losses.l_x: a loss needs a `type`"),
    ({"train": {"optim_g": {"type": "Adamm"}}}, "train.optim_g.type: unknown optimizer"),
    ({"train": {"optim_g": {"lr": "1e-4"}}}, "train.optim_g.lr: expected a number"),
    ({"train": {"optim_g": {"lr": -1}}}, "train.optim_g: Invalid learning rate"),
    ({"train": {"optim_g": None}}, "train.optim_g: this option is required"),
    ({"train": {"scheduler": {"type": "MultistepLR"}}}, "train.scheduler.type: unknown scheduler"),
    ({"train": {"scheduler": {"type": "CosineAnnealingLR"}}}, "train.scheduler.T_max: this option is required"),
    ({"datasets": {"train": {"gt_siez": 3}}}, "datasets.train.gt_siez: unknown option 'gt_siez'"),
    ({"datasets": {"train": {"type": "DegradationDatset"}}}, "datasets.train.type: unknown dataset"),
    ({"datasets": {"train": {"degradations": [{"type": "Rian"}]}}}, "datasets.train.degradations"),
    ({"datasets": {"trian": {"type": "DegradationDataset"}}}, "datasets.trian"),
    ({"val": {"val_freqq": 3}}, "val.val_freqq: unknown option"),
    ({"val": {"val_freq": 1, "metrics": {"psnr": {"type": "calculate_psn"}}}}, "val.metrics.psnr.type: unknown metric"),
    ({"val": {"val_freq": 1, "metrics": {"psnr": {"type": "calculate_psnr"}}}}, "val.metrics.psnr.crop_border"),
    (
        {"val": {"val_freq": 1, "metrics": {"p": {"type": "calculate_psnr", "crop_border": 0, "test_y_chanel": True}}}},
        "val.metrics.p.test_y_chanel: unknown option 'test_y_chanel'. Did you mean 'test_y_channel'",
    ),
    (
        {"val": {"val_freq": 1, "metrics": {"p": {"type": "calculate_psnr", "crop_border": 0, "better": "low"}}}},
        "val.metrics.p.better",
    ),
    ({"logger": {"print_frequency": 3}}, "logger.print_frequency: unknown option"),
    ({"path": {"pretrain_network": "x.pth"}}, "path.pretrain_network: unknown option"),
    # wrong type or value
    ({"train": {"total_iter": "many"}}, "train.total_iter: expected a whole number, got 'many'"),
    ({"train": {"total_iter": None}}, "train.total_iter"),
    ({"train": {"ema_decay": 2}}, "train.ema_decay: must lie between 0 and 1"),
    ({"train": {"precision": "fp8"}}, "train.precision: expected one of 'fp32', 'bf16', 'fp16'"),
    ({"train": {"accumulate": 0}}, "train.accumulate: must be 1 or more"),
    ({"train": {"grad_clip": {"nrom": 1}}}, "train.grad_clip: must be a number, {norm: x} or {value: x}"),
    ({"train": {"grad_clip": 0}}, "train.grad_clip: must be above 0"),
    ({"train": {"compile": {"mod": "default"}}}, "train.compile.mod: unknown option 'mod'. Did you mean 'mode'"),
    ({"train": {"skip_nonfinite": -1}}, "train.skip_nonfinite"),
    ({"train": {"keep_last": 0}}, "train.keep_last"),
    (
        {"train": {"progressive": {"iters": [1], "gt_sizes": [64], "batch_sizes": [2]}}},
        "train.progressive.gt_sizes: 64 is more than the 16 of datasets.train.gt_size",
    ),
    ({"train": None}, "train"),
    ({"train": [1, 2]}, "train: expected a mapping"),
    ({"val": {"tile": 8, "tile_overlap": 6, "val_freq": 1}}, "val.tile_overlap: 6 is more than half of val.tile (8)"),
    ({"val": {"val_freq": 0}}, "val.val_freq"),
    ({"val": 3}, "val: expected a mapping"),
    ({"path": 3}, "path: expected a mapping"),
    ({"logger": [1]}, "logger: expected a mapping"),
    ({"num_gpu": "two"}, "num_gpu: expected auto or a number of GPUs, got 'two'"),
    ({"num_gpu": 99}, "num_gpu: 99 GPUs wanted"),
    ({"manual_seed": "x"}, "manual_seed: expected a whole number"),
    ({"scale": "four"}, "scale"),
    ({"name": None}, "name: this option is required"),
    ({"model_type": None}, "model_type: this option is required."),
    ({"model_type": None, "modeltype": "SRModel"}, "model_type: this option is required; modeltype is none."),
    ({"datasets": None}, "datasets: this option is required"),
    ({"datasets": {"train": None}}, "datasets.train: expected a mapping"),
    (
        {"datasets": {"train": {"batch_size_per_gpu": None}}},
        "datasets.train.batch_size_per_gpu: this option is required",
    ),
    ({"datasets": {"train": {"batch_size_per_gpu": "2"}}}, "datasets.train.batch_size_per_gpu"),
    ({"datasets": {"train": {"num_worker_per_gpu": -1}}}, "datasets.train.num_worker_per_gpu"),
    ({"datasets": {"train": {"num_worker_per_gpu": 999}}}, "num_worker_per_gpu: 999 processes on a machine of"),
    ({"datasets": {"train": {"dataroot_gt": 7}}}, "datasets.train.dataroot_gt: expected text"),
    # missing
    ({"datasets": {"train": {"dataroot_gt": "nowhere/images"}}}, "datasets.train.dataroot_gt: there is no folder"),
    ({"path": {"pretrain_network_g": "nowhere/net.pth"}}, "path.pretrain_network_g: there is no file"),
    ({"path": {"pretrain_network_g": 3}}, "path.pretrain_network_g: expected a file, got 3"),
    ({"path": {"resume_state": "nowhere/1.state"}}, "nowhere/1.state: there is no such checkpoint file"),
]


@pytest.mark.parametrize(
    ("change", "message"), BAD_OPTIONS, ids=lambda value: value[:50] if isinstance(value, str) else ""
)
def test_bad_options(folder, capsys, change, message):
    said = refused(folder, capsys, tiny_runs.option_file(folder / "images", **change))
    assert message in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plugins: !!python/object/apply:os.system ['touch owned']\nname: x\n", "can run code and are refused"),
        ("name: x\nname: y\n", "written twice"),
        ("name: [\n", "is not valid YAML"),
        ("", "an option file is a mapping"),
    ],
)
def test_files_that_are_no_option_files(folder, capsys, text, message):
    (folder / "x.yml").write_text(text)
    before = content(folder)
    assert tiny_runs.run_command("train", "-opt", folder / "x.yml") == 1
    assert message in capsys.readouterr().err
    assert content(folder) == before


def test_a_missing_option_file_and_wrong_overrides(folder, capsys):
    assert tiny_runs.run_command("train", "-opt", folder / "missing.yml") == 1
    assert "the option file cannot be read" in capsys.readouterr().err
    options = tiny_runs.option_file(folder / "images")
    assert "expected KEY.SUB_KEY=VALUE" in refused(folder, capsys, options, "--set", "train.total_iter")
    assert "train.total_iter: expected a whole number" in refused(
        folder, capsys, options, "--set", "train.total_iter=x"
    )


# -- images -------------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file that claims to be of some size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def paired(folder: Path, **changes) -> dict:
    options = tiny_runs.option_file(folder / "images")
    options["datasets"]["train"] = {
        "name": "pairs", "type": "PairedRuleDataset", "dataroot_gt": str(folder / "images"), "gt_size": 16,
        "dataroot_lq": str(folder / "lq"), "num_worker_per_gpu": 0, "batch_size_per_gpu": 2, **changes,
    }  # fmt: skip
    return options


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def half_zeroed(file: Path) -> None:
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: size // 2].ljust(size, b"\0"))


def flip_value(file: Path) -> None:
    """Change one bit of a weight, which torch.load does not notice."""
    stored = torch.load(file, weights_only=True)["params"]["a"].numpy().tobytes()
    file.write_bytes(file.read_bytes().replace(stored, bytes([stored[0] ^ 1]) + stored[1:]))


BAD_IMAGES = {
    "missing": (lambda file: file.unlink(), ["2.png"]),
    "unpaired": (lambda file: file.rename(file.with_name("extra.png")), ["2.png"]),
    "size_mismatch": (lambda file: cv2.imwrite(str(file), np.zeros((30, 28, 3), np.uint8)), ["2.png", "30"]),
    "truncated": (truncate, ["2.png"]),
    "zero_bytes": (lambda file: file.write_bytes(b""), ["2.png", "empty"]),
    "wrong_type": (lambda file: file.write_text("this is a text"), ["2.png"]),
    "huge": (lambda file: file.write_bytes(png_header(200_000, 200_000)), ["2.png"]),
    "small": (lambda file: cv2.imwrite(str(file), np.zeros((9, 9, 3), np.uint8)), ["2.png", "9 x 9"]),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images(folder, capsys, kind):
    spoil, parts = BAD_IMAGES[kind]
    spoil(folder / "images" / "2.png")
    said = refused(folder, capsys, paired(folder))
    assert all(part in said for part in parts), said


GOOD_IMAGES = {
    "grey": lambda image: image[..., 0],
    "sixteen_bit": lambda image: image.astype(np.uint16) * 257,
    "alpha": lambda image: np.concatenate([image, image[..., :1]], axis=2),
    "grey_sixteen_bit": lambda image: image[..., 0].astype(np.uint16) * 257,
}


@pytest.mark.parametrize("kind", GOOD_IMAGES)
def test_unusual_images_are_read(folder, kind):
    for file in (folder / "images").iterdir():
        cv2.imwrite(str(file), GOOD_IMAGES[kind](cv2.imread(str(file))))
    file = tiny_runs.write_options(folder / "x.yml", paired(folder))
    assert tiny_runs.run_command("train", "-opt", file) == 0


def test_an_image_that_breaks_during_training_stops_with_its_name(folder, capsys):
    options = paired(folder, verify=0)
    truncate(folder / "lq" / "1.png")
    (folder / "lq" / "1.png").write_bytes(b"")
    file = tiny_runs.write_options(folder / "x.yml", options)
    assert tiny_runs.run_command("train", "-opt", file) == 1
    said = capsys.readouterr().err
    assert "1.png" in said
    assert "Traceback" not in said


# -- what is right ------------------------------------------------------------------------------------------------


def test_train_then_test(folder):
    images = str(folder / "images")
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}
    data = {"type": "DegradationDataset", "dataroot_gt": images, "degradations": tiny_runs.DEGRADATIONS}
    options = tiny_runs.option_file(folder / "images", val={"val_freq": 2, "metrics": metrics})
    options["datasets"]["val"] = {"name": "v", **data}
    file = tiny_runs.write_options(folder / "x.yml", options)
    assert tiny_runs.run_command("train", "-opt", file, "--set", "train.total_iter=3", "name=renamed") == 0
    weights = folder / "experiments/renamed/models/net_g_latest.pth"
    assert checkpoints.is_complete(weights)
    test = {
        "name": "testing", "model_type": "RestorationModel", "scale": 1, "num_gpu": 0, "network_g": tiny_runs.NETWORK,
        "datasets": {"test_1": {"name": "a", **data}}, "path": {"pretrain_network_g": str(weights)},
        "val": {"save_img": True, "metrics": metrics},
    }  # fmt: skip
    assert tiny_runs.run_command("test", "-opt", tiny_runs.write_options(folder / "test.yml", test)) == 0
    assert len(list((folder / "results/testing/visualization/a").glob("*.png"))) == 8


def test_an_epoch_with_an_incomplete_batch_does_not_end_the_training_early(folder):
    tiny_runs.write_images(folder / "images", count=5)  # 2 batches of 2 an epoch; stock counts 3
    options = tiny_runs.option_file(folder / "images", train={"total_iter": 40}, logger={"save_checkpoint_freq": 40})
    assert tiny_runs.run_command("train", "-opt", tiny_runs.write_options(folder / "x.yml", options)) == 0
    assert checkpoints.is_complete(folder / "experiments/tiny/training_states/40.state")


def test_fewer_images_than_a_batch(folder, capsys):
    options = tiny_runs.option_file(folder / "images", datasets={"train": {"batch_size_per_gpu": 9}})
    assert tiny_runs.run_command("train", "-opt", tiny_runs.write_options(folder / "x.yml", options)) == 1
    assert "4 samples in an epoch of one process are fewer than one batch of 9" in capsys.readouterr().err


# -- resuming -----------------------------------------------------------------------------------------------------


def state_options(folder: Path, **changes) -> dict:
    paths = {"models": str(folder / "models"), "training_states": str(folder / "training_states")}
    return {"auto_resume": True, "path": {"resume_state": None, **paths}, "network_g": {}, "rank": 0, **changes}


def write_state(folder: Path, iteration: int, networks=("net_g",), recorded: bool = True) -> None:
    files = [f"{name}_{iteration}.pth" for name in networks]
    state = {"iter": iteration, "epoch": 0, "optimizers": [], "schedulers": []}
    if recorded:
        state["basicsr_plugins"] = {"networks": files}
    checkpoints.save(state, folder / "training_states" / f"{iteration}.state")
    for file in files:
        checkpoints.save({"params": {"a": torch.rand(2)}}, folder / "models" / file)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "models/net_g_20.pth").unlink(),
        lambda folder: truncate(folder / "models/net_g_20.pth"),
        lambda folder: truncate(folder / "training_states/20.state"),
        lambda folder: (folder / "training_states/20.state").write_bytes(b""),
        lambda folder: checkpoints.save({"params": {}}, folder / "training_states/20.state"),
        lambda folder: zipfile.ZipFile(folder / "training_states/20.state", "w").close(),
        lambda folder: half_zeroed(folder / "training_states/20.state"),
        lambda folder: half_zeroed(folder / "models/net_g_20.pth"),
        lambda folder: flip_value(folder / "models/net_g_20.pth"),
    ],
)
def test_auto_resume_passes_over_what_is_not_whole(tmp_path, spoil, recorded):
    for iteration in (3, 20, 100):
        write_state(tmp_path, iteration, recorded=recorded)
    options = state_options(tmp_path)
    assert launcher.find_resume_state(options).name == "100.state"
    truncate(tmp_path / "training_states/100.state")
    assert launcher.find_resume_state(options).name == "20.state"
    spoil(tmp_path)
    assert launcher.find_resume_state(options).name == "3.state"
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(CheckpointError, match=r"(?s)all 3 states.*100\.state is passed over.*3\.state is passed over"):
        launcher.find_resume_state(options)
    shutil.rmtree(tmp_path / "training_states")
    assert launcher.find_resume_state(options) is None


def test_a_recipe_may_save_something_else_than_networks(tmp_path):
    write_state(tmp_path, 4, networks=())
    state = {"iter": 4, "epoch": 0, "optimizers": [], "schedulers": [], "basicsr_plugins": {"networks": ["adapter_4"]}}
    checkpoints.save(state, tmp_path / "training_states/4.state")
    with pytest.raises(CheckpointError, match="adapter_4"):
        launcher.find_resume_state(state_options(tmp_path))

    def write(adapter: Path) -> None:
        (adapter / "adapter_config.json").write_text("{}")
        checkpoints.write_safetensors({"a": torch.rand(2)}, adapter / "adapter_model.safetensors")

    write_folder(tmp_path / "models" / "adapter_4", write, {})
    assert launcher.find_resume_state(state_options(tmp_path)).name == "4.state"


def test_auto_resume_looks_into_experiments_root(folder):
    options = tiny_runs.option_file(
        folder / "images", path={"experiments_root": str(folder / "elsewhere")}, logger={"save_checkpoint_freq": 2}
    )
    file = tiny_runs.write_options(folder / "x.yml", options)
    assert tiny_runs.run_command("train", "-opt", file) == 0
    assert not (folder / "experiments").exists()
    assert tiny_runs.run_command("train", "-opt", file, "--auto_resume", "--set", "train.total_iter=6") == 0
    assert checkpoints.is_complete(folder / "elsewhere/training_states/6.state")
    assert [path.name for path in folder.iterdir() if "archived" in path.name] == []


def test_resume_state_of_another_experiment(folder, capsys):
    write_state(folder / "other", 4)
    options = tiny_runs.option_file(
        folder / "images", path={"resume_state": str(folder / "other/training_states/4.state")}
    )
    assert "keep the name of the experiment" in refused(folder, capsys, options)
    checkpoints.save({"params": {}}, folder / "weights.pth")
    options["path"]["resume_state"] = str(folder / "weights.pth")
    assert "is no training state of BasicSR" in refused(folder, capsys, options)


def test_a_malicious_state_does_not_run(folder, capsys):
    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {folder / 'owned'}",)

    states = folder / "experiments/tiny/training_states"
    states.mkdir(parents=True)
    torch.save({"iter": 1, "evil": Malicious()}, states / "1.state")
    options = tiny_runs.option_file(folder / "images")
    assert "loading them can run code" in refused(folder, capsys, options, "--auto_resume")
    assert not (folder / "owned").exists()


# -- other processes ----------------------------------------------------------------------------------------------


def run_process(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=variables, capture_output=True, text=True, timeout=240, check=False
    )


def test_a_wrong_file_in_a_process_of_its_own(folder):
    options = tiny_runs.option_file(folder / "images", train={"ema_deacy": 0.9})
    tiny_runs.write_options(folder / "x.yml", options)
    before = content(folder)
    done = run_process(folder, "-m", "basicsr_plugins", "train", "-opt", "x.yml")
    assert done.returncode == 1
    assert "train.ema_deacy: unknown option 'ema_deacy'. Did you mean 'ema_decay'" in done.stderr
    assert "Traceback" not in done.stderr
    assert content(folder) == before


@pytest.mark.slow
def test_torchrun_on_cpus_trains_and_saves(folder):
    options = tiny_runs.option_file(
        folder / "images", "dcpt", logger={"save_checkpoint_freq": 2},
        datasets={"train": {"batch_size_per_gpu": 1, "dataset_enlarge_ratio": 4}},
        val={"val_freq": 2, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
    )  # fmt: skip
    options["datasets"]["val"] = tiny_runs.validation_set(folder / "images")
    tiny_runs.write_options(folder / "x.yml", options)
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29731", "-m", "basicsr_plugins")
    done = run_process(folder, *torchrun, "train", "-opt", "x.yml")
    assert done.returncode == 0, done.stderr[-3000:]
    state = torch.load(folder / "experiments/tiny/training_states/4.state", weights_only=True)
    assert len(state["basicsr_plugins"]["random"]) == 2


def test_launcher_pytorch_needs_torchrun(folder, capsys):
    options = tiny_runs.option_file(folder / "images")
    assert "start the processes with torchrun" in refused(folder, capsys, options, "--launcher", "pytorch")


def test_network_files_of_stock_states():
    opt = {"path": {"models": "m"}, "network_g": {}, "network_d": {}}
    assert launcher.network_files(opt, {"iter": 5}) == [Path("m/net_g_5.pth"), Path("m/net_d_5.pth")]
