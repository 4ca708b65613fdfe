"""``basicsr-plugins data crop | lmdb | dedup``, one after another as a user runs them, and their exit codes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from basicsr_plugins.cli.main import build_parser, main

ROOT = Path(__file__).resolve().parents[2]


def picture(path, seed, height=48, width=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """Return clean images and degraded ones of half the size; the folder is the current one."""
    for seed in range(3):
        picture(tmp_path / "HR" / f"p {seed}.png", seed)
        picture(tmp_path / "LR" / f"p {seed}x2.png", seed, 24, 32)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return main(["data", *map(str, words)])


def test_cut_pack_check_and_train(pairs, capsys):
    """Both sides of super-resolution, down to BasicSR's own data set, network and model."""
    cut = ["crop", "HR", "HR_sub", "--pair", "LR", "LR_sub", "--scale", 2, "--size", 32, "--step", 16]
    assert run(*cut) == 1
    assert "--pair-rule 'replace:x2->' pairs them all" in capsys.readouterr().err
    assert run(*cut, "--pair-rule", "replace:x2->") == 0
    assert "36 sub-images written, 0 pairs finished before, 0 failed" in capsys.readouterr().out
    assert run(*cut, "--pair-rule", "replace:x2->") == 0
    assert "0 sub-images written, 3 pairs finished before" in capsys.readouterr().out
    assert run("lmdb", "HR_sub", "HR.lmdb", "--pair", "LR_sub", "LR.lmdb") == 0
    assert "18 pairs packed, 0 failed: HR.lmdb, LR.lmdb" in capsys.readouterr().out
    data = {
        "name": "sub", "type": "PairedImageDataset", "dataroot_gt": "HR.lmdb", "dataroot_lq": "LR.lmdb",
        "io_backend": {"type": "lmdb"}, "gt_size": 16, "use_hflip": True, "use_rot": True, "num_worker_per_gpu": 0,
        "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 1,
    }  # fmt: skip
    options = {
        "name": "tiny", "model_type": "SRModel", "scale": 2, "num_gpu": 0, "manual_seed": 0,
        "datasets": {"train": data},
        "network_g": {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 2},
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "optim_g": {"type": "Adam", "lr": 1e-3}, "scheduler": {"type": "MultiStepLR", "milestones": [9]},
            "total_iter": 2, "warmup_iter": -1,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 10, "use_tb_logger": False},
    }  # fmt: skip
    (pairs / "x.yml").write_text(yaml.safe_dump(options), encoding="utf-8")
    assert run("check", "-opt", "x.yml") == 0
    assert "datasets.train: 18 pairs\n  nothing wrong" in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "-m", "basicsr_plugins", "train", "-opt", "x.yml"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=pairs, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert (pairs / "experiments" / "tiny" / "models" / "net_g_latest.pth").is_file()


def test_the_check_knows_the_scale_of_stock_sets(pairs, capsys):
    run("crop", "HR", "a", "--pair", "LR", "b", "--scale", 2, "--size", 32, "--pair-rule", "replace:x2->", "--step", 32)
    data = {"type": "PairedImageDataset", "dataroot_gt": "a", "dataroot_lq": "b", "gt_size": 32}
    for scale, code in ((2, 0), (4, 1)):
        (pairs / "x.yml").write_text(yaml.safe_dump({"scale": scale, "datasets": {"train": data}}), encoding="utf-8")
        assert run("check", "-opt", "x.yml") == code
    assert "not 4 times as large" in capsys.readouterr().out


def test_what_crop_has_to_say(pairs, capsys):
    (pairs / "HR" / "broken.png").write_bytes(b"x")
    cv2.imwrite(str(pairs / "HR" / "clear.png"), np.zeros((8, 8, 4), np.uint8))
    assert run("crop", "HR", "out", "--size", 32, "--step", 32) == 1
    out = capsys.readouterr().out
    assert "smaller than 32 pixels, kept whole: 1 images" in out
    assert "transparency dropped: 1 images" in out
    assert "1 images could not be cut:\n  HR/broken.png: cannot be decoded" in out
    assert "13 sub-images written, 0 images finished before, 1 failed" in out
    (pairs / "HR" / "broken.png").unlink()
    assert run("crop", "HR", "out", "--size", 48, "--step", 48, "--overwrite") == 0
    assert "sub-images of an earlier run, removed: 6" in capsys.readouterr().out
    assert run("crop", "HR", "out", "--size", 32, "--step", 32) == 1
    assert "are there already" in capsys.readouterr().err


def test_what_lmdb_has_to_say(pairs, capsys):
    picture(pairs / "HR" / "1.5.png", 9)
    (pairs / "HR" / "broken.png").write_bytes(b"x")
    assert run("lmdb", "HR", "x.lmdb") == 1
    out = capsys.readouterr().out
    assert "keys that are not the name itself: 1: 1.5 -> 1_5" in out
    assert "4 images packed, 1 failed: x.lmdb" in out


def test_duplicates_and_leaks(pairs, capsys):
    pytest.importorskip("imagehash")
    picture(pairs / "HR" / "copy.jpg", 1)
    assert run("dedup", "HR", "--list", "keep.txt", "--report", "r.csv") == 0
    out = capsys.readouterr().out
    assert "HR/copy.jpg (64 x 48), distance" in out
    assert "4 images, 1 of them duplicates, in 1 groups; 0 could not be read" in out
    assert (pairs / "keep.txt").read_text().splitlines() == [f"p {seed}.png (48,64,3)" for seed in range(3)]
    assert run("dedup", "HR", "--list", "keep.txt") == 1
    assert "is there already" in capsys.readouterr().err
    assert run("dedup", "HR", "--list", "a.txt", "--move", "gone") == 1
    assert "give one of them" in capsys.readouterr().err
    assert run("dedup", "HR", "--move", "HR/gone", "--recursive") == 0
    assert (pairs / "HR" / "gone" / "copy.jpg").is_file()
    assert run("dedup", "HR", "--move", "HR/gone", "--recursive") == 0
    assert "3 images, 0 of them duplicates" in capsys.readouterr().out
    assert run("dedup", "HR", "--against", "LR") == 1
    out = capsys.readouterr().out
    assert "LR/p 0x2.png (32 x 24) is a test image of which the pool has:\n    HR/p 0.png" in out
    assert "3 images, 3 of them are in the test set" in out
    picture(pairs / "other" / "a.png", 50)
    assert run("dedup", "HR", "--against", "other") == 0


@pytest.mark.parametrize("command", ["crop", "lmdb", "dedup"])
def test_help_explains_and_its_examples_parse(command, capsys):
    with pytest.raises(SystemExit):
        run(command, "--help")
    text = capsys.readouterr().out
    assert "Exit code:" in text
    examples = [
        line.split("#")[0] for line in text.splitlines() if line.startswith(f"  basicsr-plugins data {command}")
    ]
    assert len(examples) >= 2
    for line in examples:
        assert build_parser().parse_args(shlex.split(line)[1:]).func
