"""Every writer on a disk that fills up, or in a folder that cannot be written: one typed error, the old one stays."""

from __future__ import annotations

import os

import pytest
import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.adapters.folder import CONFIG, WEIGHTS, read_folder, write_folder
from basicsr_plugins.cli.main import main
from basicsr_plugins.core.errors import CheckpointError

resource = pytest.importorskip("resource")  # not on Windows
LIMIT = 100_000


def weights(size: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((size,), float(size))}


def write_adapter(path, size: int) -> None:
    from safetensors.torch import save_file

    def fill(folder):
        (folder / CONFIG).write_text("{}")
        save_file(weights(size), folder / WEIGHTS)  # as PEFT does, which knows nothing of our errors

    write_folder(path, fill, {})


WRITERS = {
    "x.state": lambda path, size: checkpoints.save({"params": weights(size)}, path),
    "x.pth": lambda path, size: checkpoints.write(path, weights(size)),
    "x.safetensors": lambda path, size: checkpoints.write(path, weights(size)),
    "adapter": write_adapter,
}


def value(path) -> float:
    found = read_folder(path).tensors() if path.name == "adapter" else checkpoints.read(path)
    return float(found["a"][0])


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up(tmp_path, name):
    path, limits = tmp_path / name, resource.getrlimit(resource.RLIMIT_FSIZE)
    WRITERS[name](path, 8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=rf"{name} cannot be written: .*is kept"):
            WRITERS[name](path, LIMIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert value(path) == 8
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("where", ["/proc/nothing", "file/below", "read_only"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_cannot_be_written(tmp_path, name, where):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "read_only").mkdir(mode=0o555)
    if where == "read_only" and os.access(tmp_path / "read_only", os.W_OK):
        pytest.skip("root writes everywhere")
    if where.startswith("/") and not os.path.isdir("/proc"):
        pytest.skip("no /proc")
    with pytest.raises(CheckpointError, match=rf"{name} cannot be written"):
        WRITERS[name](tmp_path / where / name, 8)


def test_convert_says_it_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    source = tmp_path / "in.pth"
    options = {"type": "RestorationResNet"}
    checkpoints.write(source, weights(8), options)
    assert main(["convert", str(source), str(tmp_path / "file" / "out.pth")]) == 1
    assert "out.pth cannot be written" in capsys.readouterr().err
