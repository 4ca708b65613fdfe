"""Files that are complete or absent, reading that runs no code, every place where weights may lie."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from basicsr_plugins import checkpoints
from basicsr_plugins.core import atomic
from basicsr_plugins.core.atomic import atomic_path, remove_leftovers
from basicsr_plugins.core.errors import CheckpointError


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_save_and_read(tmp_path):
    value = {"iter": 3, "weights": {"a": torch.rand(3)}, "list": [1, 2.5, "x", None]}
    checkpoints.save(value, tmp_path / "deep" / "3.state")
    read = checkpoints.read_checkpoint(tmp_path / "deep" / "3.state")
    assert torch.equal(read["weights"]["a"], value["weights"]["a"])
    assert read["list"] == value["list"]
    assert checkpoints.is_complete(tmp_path / "deep" / "3.state")


def test_an_interrupted_save_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "net_g_1.pth"
    checkpoints.save({"a": 1}, path)

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half a file")
            assert path.read_bytes() != b"half a file"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert checkpoints.read_checkpoint(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["net_g_1.pth"]


def test_a_reader_of_the_old_file_never_sees_a_mixture(tmp_path):
    path = tmp_path / "net_g_1.pth"
    checkpoints.save({"a": 1}, path)
    old = path.read_bytes()
    with open(path, "rb") as reader:  # a file that is written over would change under it
        checkpoints.save({"a": torch.rand(1000)}, path)
        assert reader.read() == old
    assert path.read_bytes() != old


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoints.save({}, tmp_path / "file" / "net.pth")


def test_leftovers_of_dead_processes_are_removed_and_of_living_ones_kept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getpid()):
        (tmp_path / f"1.state.{process}{atomic.TEMPORARY}").write_bytes(b"half")
    (tmp_path / "1.state").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "not_there")
    assert sorted(os.listdir(tmp_path)) == ["1.state", f"1.state.{os.getpid()}{atomic.TEMPORARY}"]


@pytest.mark.parametrize("new_format", [True, False])
def test_a_malicious_pickle_does_not_run(tmp_path, new_format):
    path, target = tmp_path / "net_g.pth", tmp_path / "owned"
    torch.save({"params": Malicious(target)}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match="loading them can run code"):
        checkpoints.read_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(CheckpointError, match=r"net_g\.pth"):
        checkpoints.read_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_broken_files(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        checkpoints.save({"params": {"a": torch.rand(1000)}}, path)
    else:
        checkpoints.write_safetensors({"a": torch.rand(1000)}, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(content)
        assert not checkpoints.is_complete(path)
        with pytest.raises(CheckpointError, match=str(path.name)):
            checkpoints.read_checkpoint(path)


def test_a_missing_file_names_its_neighbours(tmp_path):
    checkpoints.save({}, tmp_path / "net_g_100.pth")
    with pytest.raises(CheckpointError, match=r"holds: net_g_100\.pth"):
        checkpoints.read_checkpoint(tmp_path / "net_g_10.pth")
    with pytest.raises(CheckpointError, match="does not exist either"):
        checkpoints.read_checkpoint(tmp_path / "nowhere" / "net_g_10.pth")


def test_safetensors_with_tied_weights(tmp_path):
    weight = torch.rand(4, 4)
    state = {"a": weight, "b": weight, "c": weight.t()}
    checkpoints.write_safetensors(state, tmp_path / "net.safetensors")
    read = checkpoints.read_checkpoint(tmp_path / "net.safetensors")
    assert all(torch.equal(read[key], value) for key, value in state.items())


STATE = {"weight": torch.ones(2)}


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"params": STATE, "params_ema": {"weight": torch.zeros(2)}}, "params"),
        ({"params_ema": STATE}, "params"),
        ({"params": STATE}, "params_ema"),
        (STATE, "params"),
        (STATE, None),
        ({"state_dict": STATE, "epoch": 3}, "params"),
        ({"params": {"module.weight": torch.ones(2)}}, "params"),
    ],
)
def test_where_weights_may_lie(content, key):
    picked = checkpoints.find_weights(content, key, "file")
    assert list(picked) == ["weight"]
    assert torch.equal(picked["weight"], torch.ones(2))


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, {"params": {"weight": "text"}}])
def test_no_weights(content):
    with pytest.raises(CheckpointError, match="holds no state dict"):
        checkpoints.find_weights(content, "params", "file")


def test_weights_of_another_network_are_counted_not_poured_out():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    given = {"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(9), "2.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load_state(network, given, "file.pth")
    for text in ("2 missing: 1.weight, 1.bias", "1 unexpected: 2.weight", "0.bias (9,) instead of (4,)"):
        assert text in str(caught.value)
    left = checkpoints.load_state(network, given, "file.pth", strict=False)
    assert sorted(left) == ["0.bias", "1.bias", "1.weight", "2.weight"]
    assert float(network[0].weight.abs().sum()) == 0


def test_a_complete_archive_is_told_from_a_cut_one(tmp_path):
    path = tmp_path / "1.state"
    checkpoints.save({"a": torch.rand(100)}, path)
    assert zipfile.is_zipfile(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert not checkpoints.is_complete(path)
    assert not checkpoints.is_complete(tmp_path / "2.state")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_others_may_read_what_was_written(tmp_path):
    before = os.umask(0o022)
    try:
        for name in ("a.safetensors", "a.pth"):
            checkpoints.write(tmp_path / name, {"w": torch.zeros(2)}, {"type": "NAFNet"})
            assert oct((tmp_path / name).stat().st_mode & 0o777) == "0o644"
        os.umask(0o077)
        checkpoints.write(tmp_path / "mine.safetensors", {"w": torch.zeros(2)}, {"type": "NAFNet"})
        assert oct((tmp_path / "mine.safetensors").stat().st_mode & 0o777) == "0o600"
    finally:
        os.umask(before)
