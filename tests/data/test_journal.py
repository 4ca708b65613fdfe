"""What a run has finished is known to the next one, and only if nothing changed since."""

import os

import pytest

from basicsr_plugins.core.errors import CheckpointError
from basicsr_plugins.data.journal import Journal


@pytest.fixture
def files(tmp_path):
    """Return a source and its output."""
    source, output = tmp_path / "a.png", tmp_path / "a_s001.png"
    source.write_bytes(b"in")
    output.write_bytes(b"out")
    return source, output


def finished(path, files, how=1):
    return Journal(path, {"how": how}).finished("a", [files[0]], [files[1]])


def test_a_finished_source_is_remembered(files, tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, {"how": 1})
    assert finished(path, files) is None
    journal.start("a")
    assert Journal(path, {"how": 1}).was_started("a")
    assert not Journal(path, {"how": 2}).was_started("a")
    journal.finish("a", [files[0]], [files[1]], {"n": 3})
    assert finished(path, files) == {"n": 3}
    assert not Journal(path, {"how": 1}).was_started("a")
    assert finished(path, files, how=2) is None


@pytest.mark.parametrize("change", ["source", "output", "gone"])
def test_a_change_makes_it_unfinished(files, tmp_path, change):
    path = tmp_path / "journal"
    Journal(path, {"how": 1}).finish("a", [files[0]], [files[1]], 1)
    if change == "gone":
        files[1].unlink()
    else:
        os.utime(files[change == "output"], (1, 1))
    assert finished(path, files) is None


def test_a_line_that_was_cut_off_spoils_no_other(files, tmp_path):
    path = tmp_path / "journal"
    for rest in ('{"source": "b", "ho', "[1]\n", "\xff\n", "{}"):
        with path.open("a", encoding="utf-8") as file:
            file.write(rest)
        Journal(path, {"how": 1}).finish("a", [files[0]], [files[1]], rest)
        assert finished(path, files) == rest


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        Journal(tmp_path / "none" / "journal", {}).start("a")
