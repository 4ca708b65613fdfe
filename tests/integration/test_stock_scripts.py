"""The stock, unmodified scripts of BasicSR 1.4.2 train, test and resume with our option files after a pip install."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import torch
from environments import Environment
from option_copies import write_options

pytestmark = [pytest.mark.integration, pytest.mark.slow]
#: Small enough for a test, long enough for the classification loss to fall well below chance.
SHORT = (
    "train.total_iter=240", "val.val_freq=240", "logger.save_checkpoint_freq=120", "logger.print_freq=20",
    "train.scheduler.T_max=240", "train.optim_g.lr=0.0015", "train.optim_dc.lr=0.0015",
    "network_g.width=8", "network_g.enc_blk_nums=[1, 1]", "network_g.dec_blk_nums=[1, 1]",
    "num_gpu=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkout(stock_basicsr, photographs, tmp_path_factory):
    """A checkout with the demo photographs where the option files expect them."""
    target = tmp_path_factory.mktemp("stock") / "BasicSR"
    shutil.copytree(stock_basicsr, target)
    shutil.copytree(photographs, target / "datasets" / "demo")
    return target


@pytest.fixture(scope="module")
def trained(installed: Environment, checkout):
    """The checkout after a DCPT pre-training with `python basicsr/train.py`."""
    write_options("demo/dcpt_nafnet.yml", checkout / "dcpt.yml", *SHORT)
    done = installed.run("basicsr/train.py", "-opt", "dcpt.yml", cwd=checkout, PYTHONPATH=str(checkout))
    return checkout, done.stdout + done.stderr


def test_the_checkout_is_unmodified(stock_basicsr):
    import basicsr.train

    for name in ("train.py", "test.py"):
        ours = (stock_basicsr / "basicsr" / name).read_bytes()
        assert ours == (type(stock_basicsr)(basicsr.train.__file__).parent / name).read_bytes()
        assert b"plugin" not in ours


def test_stock_train_runs_dcpt(trained):
    checkout, log = trained
    losses = [float(value) for value in re.findall(r"l_cls: (\S+)", log)]
    assert len(losses) == 12
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3]), losses
    accuracy = float(re.findall(r"# accuracy: ([\d.]+)", log)[-1])
    # 105 images: 0.32 is three standard deviations above chance
    assert accuracy > 0.32, f"chance is 0.2: {log[-2000:]}"
    assert "true \\ predicted" in log
    models = checkout / "experiments" / "demo_dcpt_nafnet" / "models"
    assert {path.name for path in models.iterdir()} == {
        f"net_{name}_{label}.pth" for name in ("g", "dc") for label in (120, 240, "latest")
    }
    assert list((checkout / "tb_logger").rglob("events.out.tfevents.*"))


def test_the_network_loads_into_stock_srmodel(trained, installed):
    checkout, _ = trained
    code = """
import torch
from basicsr.models import build_model
path = 'experiments/demo_dcpt_nafnet/models/net_g_latest.pth'
opt = dict(model_type='SRModel', num_gpu=0, is_train=False, dist=False, rank=0, world_size=1, name='stock',
           path=dict(pretrain_network_g=path, param_key_g='params_ema', strict_load_g=True),
           network_g=dict(type='NAFNet', width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1]))
model = build_model(opt)
print(type(model).__module__)
saved = torch.load(path, weights_only=True)
print(all(torch.equal(v, saved['params_ema'][k]) for k, v in model.net_g.state_dict().items()))
print(any(not torch.equal(v, saved['params'][k]) for k, v in saved['params_ema'].items()))
"""
    done = installed.run("-c", code, cwd=checkout, PYTHONPATH=str(checkout))
    assert done.stdout.split()[-3:] == ["basicsr.models.sr_model", "True", "True"]


def test_stock_train_fine_tunes_and_stock_test_prints_a_table(trained, installed):
    checkout, _ = trained
    short = [text for text in SHORT if not text.startswith(("train.", "val."))]
    write_options(
        "demo/finetune_nafnet.yml", checkout / "finetune.yml",
        *short, "train.total_iter=10", "val.val_freq=10", "logger.save_checkpoint_freq=100",
    )  # fmt: skip
    done = installed.run("basicsr/train.py", "-opt", "finetune.yml", cwd=checkout, PYTHONPATH=str(checkout))
    assert "Loading net_g from experiments/demo_dcpt_nafnet/models/net_g_latest.pth" in done.stdout + done.stderr
    network = [text for text in SHORT if text.startswith(("network_g", "num_gpu"))]
    write_options("demo/test_nafnet.yml", checkout / "test.yml", *network)
    done = installed.run("basicsr/test.py", "-opt", "test.yml", cwd=checkout, PYTHONPATH=str(checkout))
    table = (done.stdout + done.stderr).split("All data sets:")[1]
    rows = [line.split()[0] for line in table.strip().splitlines()[1:7]]
    assert rows == ["rain", "noise", "haze", "low_light", "blur", "average"]
    pictures = list((checkout / "results" / "demo_test_nafnet" / "visualization").rglob("*.png"))
    assert len(pictures) == 10  # two photographs, five degradations: none overwrites another


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "basicsr.train"],
        ["-m", "basicsr_plugins", "train"],
        ["-m", "torch.distributed.run", "--nproc_per_node=1", "basicsr/train.py"],
        ["-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "basicsr_plugins", "train"],
    ],
    ids=["python -m basicsr.train", "launcher", "torchrun stock script", "torchrun launcher on two CPU ranks"],
)
def test_other_ways_to_start(command, installed, checkout, tmp_path):
    tiny = [text for text in SHORT if not text.startswith(("train.", "val.", "logger."))]
    options = write_options(
        "demo/dcpt_nafnet.yml", tmp_path / "dcpt.yml",
        *tiny, "train.total_iter=2", "name=other_way", "logger.print_freq=1", "val=null",
        "datasets.train.batch_size_per_gpu=2", "datasets.train.gt_size=32", "logger.use_tb_logger=false",
    )  # fmt: skip
    ours = "basicsr_plugins" in command
    cwd = tmp_path if ours else checkout
    if ours:
        (tmp_path / "datasets").symlink_to(checkout / "datasets")
    shutil.rmtree(cwd / "experiments" / "other_way", ignore_errors=True)
    done = installed.run(*command, "-opt", str(options), cwd=cwd, PYTHONPATH=str(checkout))
    assert len(re.findall(r"l_cls: ", done.stdout + done.stderr)) == 2
    assert (cwd / "experiments" / "other_way" / "models" / "net_g_latest.pth").is_file()


def test_resume_without_cuda_through_the_launcher(installed, checkout, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("stock resumes where there is CUDA")
    (tmp_path / "datasets").symlink_to(checkout / "datasets")
    tiny = [text for text in SHORT if not text.startswith(("train.", "val.", "logger."))]
    options = write_options(
        "demo/dcpt_nafnet.yml", tmp_path / "dcpt.yml",
        *tiny, "train.total_iter=4", "name=resumed", "logger.print_freq=1", "logger.save_checkpoint_freq=2", "val=null",
        "datasets.train.batch_size_per_gpu=2", "datasets.train.gt_size=32", "logger.use_tb_logger=false",
    )  # fmt: skip
    first = ["-m", "basicsr_plugins", "train", "-opt", str(options), "--set", "train.total_iter=2"]
    installed.run(*first, cwd=tmp_path, PYTHONPATH=str(checkout))
    again = installed.run(
        "-m", "basicsr_plugins", "train", "-opt", str(options), "--auto_resume", cwd=tmp_path, PYTHONPATH=str(checkout)
    )
    log = again.stdout + again.stderr
    assert "Resuming training from epoch: 0, iter: 2." in log
    assert re.findall(r"iter:\s+(\d+), lr", log) == ["3", "4"]


def test_two_commands_in_the_readme_exist():
    from option_copies import ROOT

    readme = (ROOT / "README.md").read_text()
    for command in ("bash tools/quickstart.sh", "bash tools/run_tests.sh"):
        assert command in readme
        subprocess.run(["bash", "-n", str(ROOT / command.split()[1])], check=True)
    assert sys.version_info >= (3, 9)
