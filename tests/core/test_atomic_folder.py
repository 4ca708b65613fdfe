"""A folder is the old one or the new one after a kill at any step, and left-overs are never taken for folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters.folder import CONFIG, PROVENANCE, WEIGHTS, find_adapters, read_folder, write_folder
from basicsr_plugins.core import atomic
from basicsr_plugins.core.errors import CheckpointError

STEPS = 20  # more than there are: the last ones let the child end


def write(root: Path, value: float, name: str = "rain") -> None:
    def fill(folder: Path) -> None:
        (folder / CONFIG).write_text('{"peft_type": "LORA", "r": 4}')
        checkpoints.write_safetensors({"a": torch.full((3,), value)}, folder / WEIGHTS)

    write_folder(root / name, fill, {"name": name, "base": {"fingerprint": "f"}})


def killed_at(root: Path, step: int) -> bool:
    """Replace the folder in a process that is killed before its n-th flush, rename or removal."""
    child = os.fork()
    if not child:
        left = [step]

        def counted(function):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return function(*arguments, **options)

            return call

        os.fsync, os.replace, shutil.rmtree = map(counted, (os.fsync, os.replace, shutil.rmtree))
        try:
            write(root, 2)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "replaced"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_folder(tmp_path, is_first):
    seen, kills = set(), 0
    for step in range(STEPS):
        root = tmp_path / str(step)
        write(root, 0, "haze")
        if not is_first:
            write(root, 1)
        kills += killed_at(root, step)
        found = find_adapters(root)
        assert not is_first or set(found) <= {"haze", "rain"}
        if not is_first:
            assert list(found) == ["haze", "rain"]
        seen.add(float(found["rain"].tensors()["a"][0]) if "rain" in found else None)
        assert sorted(os.listdir(root)) == sorted(found)  # nothing else is left
    assert kills >= 6
    assert kills < STEPS
    assert seen == ({None, 2.0} if is_first else {1.0, 2.0})


def test_the_only_copy_comes_back_when_the_folder_itself_is_read(tmp_path):
    write(tmp_path, 1)
    os.replace(tmp_path / "rain", tmp_path / f"rain.{dead()}{atomic.REPLACED}")
    assert read_folder(tmp_path / "rain").tensors()["a"].tolist() == [1, 1, 1]


def dead() -> int:
    """Return the number of no process (the kernel's numbers end at 2 ** 22)."""
    return 2**22 + 1


@pytest.mark.parametrize("process", [dead(), os.getpid()], ids=["dead", "alive"])
def test_left_overs_are_never_read(tmp_path, process):
    write(tmp_path, 1)
    for name in (f"rain.{process}{atomic.TEMPORARY}", f"rain.{process}{atomic.REPLACED}", ".rain.x7.old"):
        shutil.copytree(tmp_path / "rain", tmp_path / name)
    assert list(find_adapters(tmp_path)) == ["rain"]
    assert len(os.listdir(tmp_path)) == (2 if process == dead() else 4)


@pytest.mark.parametrize("step", [0, 1])
def test_a_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch, step):
    write(tmp_path, 1)
    left, replace = [step], os.replace

    def fail(source, target):
        if ".tensors" not in str(source) and Path(source).is_dir():
            left[0] -= 1
            if left[0] == -1:
                raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(CheckpointError, match="rain cannot be written: .*No space left"):
            write(tmp_path, 2)
    assert os.listdir(tmp_path) == ["rain"]
    assert read_folder(tmp_path / "rain").tensors()["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS, PROVENANCE])
def test_no_flipped_bit_of_an_adapter_folder_is_silent(tmp_path, file):
    write(tmp_path, 1)
    folder, path = read_folder(tmp_path / "rain"), tmp_path / "rain" / file
    whole, refused = path.read_bytes(), 0
    positions = range(0, len(whole), max(1, len(whole) // 40))
    for position in positions:
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 7
        path.write_bytes(broken)
        try:
            again = read_folder(tmp_path / "rain")
            assert torch.equal(again.tensors()["a"], torch.ones(3))
        except CheckpointError:
            refused += 1
        else:
            assert (again.name, again.config, again.base) == (folder.name, folder.config, folder.base)
    assert refused > len(positions) / 2  # the rest are the names of checksums
