"""Whole or refused: a bit that flips in a file of ours is an error or changes nothing, in every kind of file."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.checkpoints.whole import CHECKSUM
from basicsr_plugins.core.errors import CheckpointError

FLIPS = 70  # of each kind


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "conv.weight": torch.rand(4, 3, 3, 3),
        "half": torch.rand(7).bfloat16(),
        "count": torch.tensor(3),
        "names": torch.tensor([114, 97], dtype=torch.uint8),
        "nothing": torch.zeros(0, 2),
    }


def write_state(path: Path) -> None:
    momentum = {"state": {0: {"step": 3, "exp_avg": torch.rand(64)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    ours = {"networks": ["net_g_3.pth"], "best": {"set": {"psnr": {"better": "higher", "val": 30.5, "iter": 2}}}}
    value = {
        "epoch": 1,
        "iter": 3,
        "optimizers": [momentum],
        "schedulers": [{"last_epoch": 3}],
        "basicsr_plugins": ours,
    }
    checkpoints.save(value, path)


def write_network(path: Path) -> None:
    states = {"params": weights(), "params_ema": weights()}
    checkpoints.write_network_file(path, states, {"type": "DegradationEstimator", "classes": ["rain", "haze"]})


KINDS = {".state": write_state, ".pth": write_network, ".safetensors": write_network}


def read(path: Path):
    content = checkpoints.read_checkpoint(path)
    return content, checkpoints.recorded_network(path, content)


def is_same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(is_same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(is_same, one, other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("suffix", KINDS)
def test_no_flipped_bit_is_silent(tmp_path, suffix):
    path, draw = tmp_path / f"3{suffix}", random.Random(suffix)
    KINDS[suffix](path)
    whole, original = path.read_bytes(), read(path)
    refused = 0
    for _ in range(FLIPS):
        position, bit = draw.randrange(len(whole)), draw.randrange(8)
        broken = bytearray(whole)
        broken[position] ^= 1 << bit
        path.write_bytes(broken)
        try:
            found = read(path)
        except CheckpointError:
            refused += 1
        else:
            assert is_same(found, original), f"bit {bit} of byte {position}"
    assert refused > FLIPS // 4  # the rest lies in padding and dates


def empty_archive(path: Path) -> None:
    zipfile.ZipFile(path, "w").close()


def half_zeroed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))


SPOILS = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "half zeroed": half_zeroed,
    "header bytes flipped": lambda path: path.write_bytes(b"\xaf\xb4\xfc\xfb" + path.read_bytes()[4:]),
    "empty archive": empty_archive,
    "empty": lambda path: path.write_bytes(b""),
    "a tail of another file": lambda path: path.write_bytes(path.read_bytes()[:-200] + b"x" * 200),
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("suffix", KINDS)
def test_broken_files_are_named(tmp_path, suffix, spoil):
    path = tmp_path / f"3{suffix}"
    KINDS[suffix](path)
    SPOILS[spoil](path)
    with pytest.raises(CheckpointError, match=rf"3\{suffix}") as caught:
        checkpoints.read_checkpoint(path)
    assert "weights_only" not in str(caught.value)


def test_files_of_others_load_without_a_checksum(tmp_path):
    from safetensors.torch import save_file

    save_file(weights(), tmp_path / "theirs.safetensors")
    assert is_same(
        dict(sorted(checkpoints.read(tmp_path / "theirs.safetensors").items())), dict(sorted(weights().items()))
    )
    torch.save({"params": weights()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert is_same(checkpoints.read(tmp_path / "old.pth"), weights())


def test_the_checksum_covers_what_is_recorded_beside_the_tensors(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "net.safetensors"
    write_network(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert len(metadata[CHECKSUM]) == 8
    for changed in ({**metadata, "network_g": "{}"}, {**metadata, CHECKSUM: "0" * 8}):
        save_file(weights(), path, changed)
        with pytest.raises(CheckpointError, match=r"net\.safetensors is not whole.*take another copy"):
            checkpoints.read_checkpoint(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_refusal_does_not_quote_torchs_advice(tmp_path, new_format):
    torch.save({"net": torch.nn.Linear(1, 1)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"Linear.*loading them can run code") as caught:
        checkpoints.read_checkpoint(tmp_path / "whole.pth")
    assert "weights_only" not in str(caught.value)
    assert "safe_globals" not in str(caught.value)


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="this torch always writes sums")
def test_files_of_others_without_sums_load_and_ours_have_them_all_the_same(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"params": weights()}, tmp_path / "theirs.pth")
        checkpoints.write(tmp_path / "ours.pth", weights())
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(True)
    assert is_same(checkpoints.read(tmp_path / "theirs.pth"), weights())
    assert is_same(checkpoints.read(tmp_path / "ours.pth"), weights())
    assert not any(entry.CRC for entry in zipfile.ZipFile(tmp_path / "theirs.pth").infolist())
    assert all(entry.CRC for entry in zipfile.ZipFile(tmp_path / "ours.pth").infolist() if entry.file_size)
