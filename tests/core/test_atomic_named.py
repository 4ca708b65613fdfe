"""A temporary file that has the final name: there as a whole, or not at all, with nothing left beside it."""

from __future__ import annotations

import pytest

from basicsr_plugins.core.atomic import atomic_named
from basicsr_plugins.core.errors import CheckpointError


def test_it_has_its_name_and_then_its_place(tmp_path):
    with atomic_named(tmp_path / "net.onnx") as temporary:
        assert temporary.name == "net.onnx"
        temporary.write_bytes(b"new")
        assert not (tmp_path / "net.onnx").exists()
    assert (tmp_path / "net.onnx").read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), CheckpointError("no")])
def test_what_goes_wrong_leaves_the_old_file(tmp_path, error):
    (tmp_path / "net.onnx").write_bytes(b"old")
    wanted = CheckpointError if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted), atomic_named(tmp_path / "net.onnx") as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise error
    assert (tmp_path / "net.onnx").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["net.onnx"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    left = tmp_path / "net.onnx.999999999.incomplete"
    left.mkdir()
    with atomic_named(tmp_path / "net.onnx") as temporary:
        temporary.write_bytes(b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["net.onnx"]
