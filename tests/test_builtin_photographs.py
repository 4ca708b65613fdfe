"""tools/builtin_photographs.py: the list, missing and changed photographs, shrinking, the table of the model card."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from basicsr_plugins.core.errors import DataError, DependencyError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("builtin_photographs", ROOT / "tools" / "builtin_photographs.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def picture(path, size=(60, 90)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 256, (*size, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)


@pytest.fixture
def debian(tool, tmp_path):
    """A folder with other pictures in the place of the packages' photographs."""
    for each in tool.read_list():
        if each.package not in tool.WHEELS:
            picture(tmp_path / "debian" / each.path)
    return tmp_path / "debian"


def test_no_photograph_is_in_two_parts_and_each_has_an_author_and_a_licence(tool):
    photographs = tool.read_list()
    names = [each.name for each in photographs]
    assert len(set(names)) == len(names) == 38
    assert len({each.sha256 for each in photographs}) == 38
    assert {part: sum(each.part == part for each in photographs) for part in tool.PARTS} == {
        "train": 27, "val": 2, "test": 9,
    }  # fmt: skip
    assert all(each.author and each.licence and len(each.sha256) == 64 for each in photographs)


def test_the_model_card_attributes_every_photograph(tool):
    assert tool.table() in (ROOT / "docs" / "builtin_model.md").read_text(encoding="utf-8")


def test_photographs_of_the_wheels_are_those_of_the_list(tool, debian):
    changed: list[str] = []
    read = list(tool.read_photographs(debian, changed))
    assert len(read) == 38
    assert not any(package in text for text in changed for package in tool.WHEELS), changed
    assert len(changed) == 29


def test_missing_packages_are_named_with_the_command_that_brings_them(tool, debian, tmp_path):
    with pytest.raises(DataError, match=r"29 of 38 .* apt-get download lomiri-wallpapers-16.04 .* --debian DIR"):
        tool.write_photographs(tmp_path / "out", None)
    (debian / "usr/share/backgrounds/mate/nature/Dune.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 38 .*Dune\.jpg.* apt-get download mate-backgrounds'"):
        tool.write_photographs(tmp_path / "out", debian)
    assert not (tmp_path / "out").exists()


def test_other_versions_are_refused_by_name_unless_they_are_wanted(tool, debian, tmp_path):
    with pytest.raises(DataError, match=r"aitzgorri \(lomiri-wallpapers-16\.04.*--any-version"):
        tool.write_photographs(tmp_path / "out", debian)
    written = tool.write_photographs(tmp_path / "out", debian, any_version=True)
    stems = {part: {file.stem.replace("_half", "") for file in files} for part, files in written.items()}
    assert {part: len(each) for part, each in stems.items()} == {"train": 27, "val": 2, "test": 9}
    assert not any("_half" in file.stem for file in [*written["val"], *written["test"]])
    times = {file: os.stat(file).st_mtime_ns for files in written.values() for file in files}
    tool.write_photographs(tmp_path / "out", debian, any_version=True)
    assert times == {file: os.stat(file).st_mtime_ns for file in times}
    next(iter(times)).write_bytes(b"mine")
    with pytest.raises(DataError, match="already there with other content"):
        tool.write_photographs(tmp_path / "out", debian, any_version=True)


@pytest.mark.parametrize(
    ("size", "lossless", "expected"),
    [((3000, 4000), False, (768, 1024)), ((400, 600), False, (200, 300)), ((400, 600), True, (400, 600)),
     ((2000, 1000), True, (1024, 512))],
)  # fmt: skip
def test_what_comes_from_a_jpeg_is_at_least_halved(tool, size, lossless, expected):
    image = np.full((*size, 3), 77, np.uint8)
    shrunk = tool.shrunk(image, lossless)
    assert shrunk.shape[:2] == expected
    assert (shrunk == 77).all()


def test_a_broken_package_and_a_machine_without_dpkg(tool, tmp_path, monkeypatch):
    (tmp_path / "broken.deb").write_bytes(b"no package")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path / "nothing"))
        with pytest.raises(DependencyError, match="there is no dpkg"):
            tool.unpack(tmp_path, tmp_path / "out")
    if any((Path(folder) / "dpkg").exists() for folder in os.environ["PATH"].split(os.pathsep)):
        with pytest.raises(DataError, match="dpkg cannot unpack it"):
            tool.unpack(tmp_path, tmp_path / "out")
