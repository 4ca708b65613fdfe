"""The demo photographs: split by photograph, tiled, and never written over something else."""

from __future__ import annotations

import sys

import cv2
import pytest

from basicsr_plugins.core.errors import DataError, DependencyError
from basicsr_plugins.data.demo_photographs import SPLIT, TILE, write_demo_data


def test_photographs_of_one_part_are_in_no_other_and_tiles_are_cut_from_the_test_part(tmp_path):
    written = write_demo_data(tmp_path)
    assert {file.stem for file in written["train"]} == set(SPLIT["train"])
    assert {file.stem for file in written["test"]} == set(SPLIT["test"])
    assert not set(SPLIT["train"]) & set(SPLIT["test"])
    assert {file.stem.split("_")[0] for file in written["val"]} == set(SPLIT["test"])
    tile = next(file for file in written["val"] if file.stem == "chelsea_128_256")
    whole = cv2.imread(str(tmp_path / "test" / "chelsea.png"))
    assert (cv2.imread(str(tile)) == whole[128 : 128 + TILE, 256 : 256 + TILE]).all()
    for file in written["train"]:
        assert cv2.imread(str(file)).std() > 10


def test_writing_again_changes_nothing_and_other_content_is_kept(tmp_path):
    before = {file: file.stat().st_mtime_ns for files in write_demo_data(tmp_path).values() for file in files}
    assert before == {file: file.stat().st_mtime_ns for files in write_demo_data(tmp_path).values() for file in files}
    mine = tmp_path / "train" / "flower.png"
    mine.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"flower\.png is already there"):
        write_demo_data(tmp_path)
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("missing", ["skimage", "sklearn.datasets", "matplotlib.cbook"])
def test_a_missing_library_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DependencyError, match=r"pip install basicsr-plugins\[demo\]"):
        write_demo_data(tmp_path)
