"""What a user gets wrong is one message with the YAML path or the file, before any folder is made, exit code not 0."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from option_copies import ROOT

from basicsr_plugins.cli.main import main

TINY = [
    "train.total_iter=1", "num_gpu=0", "network_g.width=4", "network_g.enc_blk_nums=[1]", "network_g.dec_blk_nums=[1]",
    "datasets.train.num_worker_per_gpu=0", "logger.use_tb_logger=false",
]  # fmt: skip


def run(tmp_path, monkeypatch, capsys, *overrides: str) -> tuple[int, str]:
    """Start a training in process and return the exit code and what was said on stderr."""
    monkeypatch.chdir(tmp_path)
    option_file = ROOT / "options" / "demo" / "dcpt_nafnet.yml"
    code = main(["train", "-opt", str(option_file), "--set", *TINY, *overrides])
    said = capsys.readouterr().err
    assert not (tmp_path / "experiments").exists(), "a half-made experiment folder was left behind"
    assert not (tmp_path / "tb_logger").exists()
    return code, said


@pytest.fixture
def photographs(tmp_path) -> Path:
    """Two small noise images where the option file looks for its photographs."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        folder = tmp_path / "datasets" / "demo" / part
        folder.mkdir(parents=True)
        for name in ("one.png", "two.png"):
            cv2.imwrite(str(folder / name), rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    return tmp_path / "datasets" / "demo"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("network_dc=null", ["network_dc", "needs this network"]),
        ("train.clasification_opt={type: FocalLoss}", ["train.clasification_opt", "'classification_opt'"]),
        ("datasets.train.gt_siez=64", ["datasets.train.gt_siez", "'gt_size'"]),
        ("train.feature_layers=[decoders.9]", ["train.feature_layers", "NAFNet", "decoders.9", "decoders.0"]),
        ("network_dc.num_classes=3", ["network_dc.num_classes", "labels up to 4", "num_classes: 5"]),
        ("model_type=DCPTModle", ["model_type", "'DCPTModel'"]),
        ("network_g.type=NAFNett", ["network_g.type", "'NAFNet'"]),
        ("network_g.witdh=8", ["network_g.witdh", "'width'"]),
        ("train.optim_g.lr='1e-3'", ["train.optim_g.lr", "1e-3"]),
        ("train.optim_g.type=AdamWW", ["train.optim_g.type", "'AdamW'"]),
        ("train.classification_opt.type=FocalLos", ["train.classification_opt.type", "'FocalLoss'"]),
        ("datasets.train.degradations=[Rian]", ["datasets.train.degradations[0]", "'Rain'"]),
        ("path.pretrain_network_g=nowhere.pth", ["path.pretrain_network_g", "nowhere.pth"]),
        ("val.metrics={psnr: {type: calculate_psn}}", ["val.metrics.psnr.type", "'calculate_psnr'"]),
    ],
)
def test_wrong_options(override, parts, tmp_path, monkeypatch, capsys, photographs):
    code, said = run(tmp_path, monkeypatch, capsys, override)
    assert code == 1
    assert all(part in said for part in parts), said
    assert len(said.strip().splitlines()) <= 3
    assert "Traceback" not in said


def _missing(folder: Path) -> None:
    shutil.rmtree(folder)


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _zero_bytes(folder: Path) -> None:
    (folder / "one.png").write_bytes(b"")


def _truncated(folder: Path) -> None:
    content = (folder / "one.png").read_bytes()
    (folder / "one.png").write_bytes(content[: len(content) // 2])


def _no_image(folder: Path) -> None:
    (folder / "one.png").write_text("this is a text")


def _too_small(folder: Path) -> None:
    cv2.imwrite(str(folder / "one.png"), np.zeros((20, 200, 3), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (_missing, ["datasets.train.dataroot_gt", "datasets/demo/train"]),
        (_empty, ["datasets.train.dataroot_gt", "datasets/demo/train"]),
        (_zero_bytes, ["one.png", "empty"]),
        (_truncated, ["one.png"]),
        (_no_image, ["one.png"]),
        (_too_small, ["one.png", "20", "32"]),
    ],
)
def test_wrong_images(spoil, parts, tmp_path, monkeypatch, capsys, photographs):
    spoil(photographs / "train")
    code, said = run(tmp_path, monkeypatch, capsys)
    assert code == 1
    assert all(part in said for part in parts), said
    assert "Traceback" not in said


@pytest.mark.integration
def test_the_stock_script_says_the_same_before_it_makes_a_folder(installed, stock_basicsr, tmp_path):
    checkout = tmp_path / "BasicSR"
    shutil.copytree(stock_basicsr, checkout)
    option_file = ROOT / "options" / "demo" / "dcpt_nafnet.yml"
    text = option_file.read_text().replace("gt_size:", "gt_siez:")
    (checkout / "wrong.yml").write_text(text)
    done = installed.run("basicsr/train.py", "-opt", "wrong.yml", cwd=checkout, expect=1, PYTHONPATH=str(checkout))
    assert "basicsr_plugins: datasets.train.gt_siez: unknown option 'gt_siez'. Did you mean 'gt_size'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (checkout / "experiments").exists()


@pytest.mark.integration
def test_a_stock_option_file_is_none_of_our_business(installed, stock_basicsr, tmp_path):
    """An option file that uses nothing of ours is checked by nobody but BasicSR."""
    (tmp_path / "stock.yml").write_text(
        "name: x\nmodel_type: SRModel\nscale: 2\nnum_gpu: 0\nmanual_seed: 0\nsurprise: 1\ndatasets: {}\n"
        "path: {}\ntrain: {odd: 1}\nlogger: {}\n"
    )
    code = (
        "import sys, basicsr.utils.options as o\nsys.argv = ['train.py', '-opt', 'stock.yml']\n"
        "opt, _ = o.parse_options('.')\nprint(opt['surprise'])"
    )
    assert installed.run("-c", code, cwd=tmp_path, PYTHONPATH=str(stock_basicsr)).stdout.split()[-1] == "1"
