"""Copies are found whatever was done to them, different pictures are not, and nothing is lost by what follows."""

import csv
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from basicsr_plugins.core.errors import CheckpointError, DataError, DependencyError, OptionError
from basicsr_plugins.data.duplicate_reports import check_outputs, move_duplicates, write_list, write_report
from basicsr_plugins.data.duplicates import find_duplicates
from basicsr_plugins.data.files import listed_files
from basicsr_plugins.data.fingerprints import fingerprint
from basicsr_plugins.data.manifest_file import read_manifest

pytest.importorskip("imagehash")

COPIES = {
    "jpeg.jpg": lambda image: image,
    "half.png": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "crop.png": lambda image: image[1:-1, 1:-1],
    "deep.png": lambda image: image.astype(np.uint16) * 257,
    "grey.png": lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
    "bright.png": lambda image: np.clip(image * 0.9 + 20, 0, 255).astype(np.uint8),
}
TURNED = {
    "mirrored.png": lambda image: image[:, ::-1],
    "turned.png": np.rot90,
    "upside_down.png": lambda image: np.rot90(image, 2),
    "both.png": lambda image: np.rot90(image[:, ::-1]),
}


def picture(seed, side=128):
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side + 16, side), interpolation=cv2.INTER_CUBIC)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(image))[1].tobytes())
    return path


@pytest.fixture
def pool(tmp_path):
    """Return six pictures, of which two have copies."""
    for seed in range(6):
        write(tmp_path / "pool" / f"{seed}.png", picture(seed))
    for name, change in COPIES.items():
        write(tmp_path / "pool" / f"0_{name}", change(picture(0)))
    (tmp_path / "pool" / "1 same.png").write_bytes((tmp_path / "pool" / "1.png").read_bytes())
    return tmp_path / "pool"


def found(search):
    return {group.keep.path.name: {item.file.path.name for item in group.duplicates} for group in search.groups}


def test_copies_are_found_and_the_best_one_stays(pool):
    search = find_duplicates([pool], workers=2)
    everything = {"0.png"} | {f"0_{name}" for name in COPIES}
    kept = search.groups[0].keep
    assert kept.size == (128, 144)
    assert kept.path.name == "0_deep.png"  # as many pixels and most bytes
    assert found(search) == {kept.path.name: everything - {kept.path.name}, "1 same.png": {"1.png"}}
    exact = search.groups[1].duplicates[0]
    assert (exact.exact, exact.distance) == (True, 0)
    assert not any(item.exact for item in search.groups[0].duplicates)
    assert len(search.kept) == 6


@pytest.mark.parametrize("way", TURNED)
def test_turned_copies_are_found_if_asked_for(pool, way):
    write(pool / f"2_{way}", TURNED[way](picture(2)))
    assert len(find_duplicates([pool]).groups) == 2
    groups = find_duplicates([pool], turned=True).groups
    assert {"2.png", f"2_{way}"} in [{g.keep.path.name, *(d.file.path.name for d in g.duplicates)} for g in groups]
    assert len(groups) == 3


def test_the_hash_is_that_of_the_package(pool):
    from imagehash import phash
    from PIL import Image

    for path in (pool / "0.png", pool / "0_jpeg.jpg", pool / "0_grey.png"):
        with Image.open(path) as image:
            assert fingerprint(path, phash, turned=True).hashes[0] == int(str(phash(image)), 16)


def test_exact_copies_alone(pool, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    assert found(find_duplicates([pool], exact=True)) == {"1 same.png": {"1.png"}}
    with pytest.raises(DependencyError, match=r"basicsr-plugins\[dedup\]"):
        find_duplicates([pool])


def test_distance_decides(pool):
    assert len(find_duplicates([pool], distance=0).kept) > len(find_duplicates([pool], distance=6).kept)
    for wrong in (-1, 33):
        with pytest.raises(OptionError, match="--distance"):
            find_duplicates([pool], distance=wrong)


def test_pictures_of_one_colour_are_not_taken_for_each_other(tmp_path):
    for value in (0, 128, 255):
        write(tmp_path / "flat" / f"{value}.png", np.full((40, 40, 3), value, np.uint8))
    write(tmp_path / "flat" / "black.png", np.zeros((40, 40, 3), np.uint8))
    search = find_duplicates([tmp_path / "flat"])
    assert search.flat == 4
    assert found(search) == {"0.png": {"black.png"}}


def test_test_images_in_the_training_set(pool, tmp_path):
    write(tmp_path / "test" / "x.png", COPIES["half.png"](picture(0)))
    write(tmp_path / "test" / "y.png", picture(77))
    (tmp_path / "test" / "z.png").write_bytes((pool / "3.png").read_bytes())
    search = find_duplicates([pool], [tmp_path / "test"])
    assert found(search) == {"x.png": {"0.png"} | {f"0_{name}" for name in COPIES}, "z.png": {"3.png"}}
    assert {file.path.name for file in search.kept} == {"1.png", "1 same.png", "2.png", "4.png", "5.png"}
    exact = find_duplicates([pool], [tmp_path / "test"], exact=True)
    assert found(exact) == {"x.png": {"0_half.png"}, "z.png": {"3.png"}}
    with pytest.raises(DataError, match="holds no image that --against does not hold"):
        find_duplicates([pool], [pool])


def test_folders_inside_folders_are_looked_at_once(pool):
    write(pool / "sub" / "n.png", picture(50))
    search = find_duplicates([pool, pool / "sub", pool], recursive=True)
    assert len(search.files) == 14
    assert len(search.groups) == 2


def test_a_link_is_worth_less_than_its_file(pool):
    (pool / "0a.png").symlink_to(pool / "4.png")
    assert found(find_duplicates([pool]))["4.png"] == {"0a.png"}


def test_broken_files_are_said(pool):
    (pool / "5.png").write_bytes(b"")
    search = find_duplicates([pool])
    assert search.failed == [f"{pool / '5.png'}: is empty (0 bytes)."]
    assert len(search.groups) == 2


def test_a_list_is_what_the_data_sets_read(pool, tmp_path):
    for name in ("#1.png", "'q'.png", "a b (3,4).png", "é.png", "100%.png"):
        write(pool / name, picture(hash(name) % 1000 + 100))
    search = find_duplicates([pool])
    write_list(tmp_path / "keep.txt", search.kept, [pool])
    assert listed_files(pool, str(tmp_path / "keep.txt"), "x") == [file.path for file in search.kept]
    assert "2.png (128,144,3)" in (tmp_path / "keep.txt").read_text(encoding="utf-8").splitlines()
    write_list(tmp_path / "both.txt", search.kept, [pool, tmp_path])
    assert listed_files(tmp_path, str(tmp_path / "both.txt"), "x") == [file.path for file in search.kept]
    write(pool / "new\nline.png", picture(7))
    with pytest.raises(DataError, match="cannot stand in a list"):
        write_list(tmp_path / "keep.txt", find_duplicates([pool]).kept, [pool])


def test_duplicates_are_moved_and_can_be_moved_back(pool, tmp_path):
    (pool / "manifest.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in pool.iterdir()}
    search = find_duplicates([pool])
    assert move_duplicates(tmp_path / "gone", search, [pool]) == 7
    assert {path.name for path in pool.glob("*.*g")} == {file.path.name for file in search.kept}
    for entry in read_manifest(tmp_path / "gone" / "manifest.json")["images"]:
        os.rename(tmp_path / "gone" / entry["output"], entry["image"])
    assert {path.name: path.read_bytes() for path in pool.iterdir()} == before
    (tmp_path / "gone" / "1.png").write_bytes(b"mine")
    move_duplicates(tmp_path / "gone", find_duplicates([pool]), [pool])
    assert (tmp_path / "gone" / "1.png").read_bytes() == b"mine"
    assert {"manifest.json", "manifest_2.json", "1_2.png"} <= set(os.listdir(tmp_path / "gone"))
    assert move_duplicates(tmp_path / "none", find_duplicates([pool]), [pool]) == 0
    assert not (tmp_path / "none").exists()


def test_moving_to_another_disk_copies_first(pool, tmp_path, monkeypatch):
    def elsewhere(source, target):
        raise OSError(18, "Invalid cross-device link")

    before = (pool / "1.png").read_bytes()
    monkeypatch.setattr(os, "rename", elsewhere)
    move_duplicates(tmp_path / "gone", find_duplicates([pool], exact=True), [pool])
    assert (tmp_path / "gone" / "1.png").read_bytes() == before
    assert not (pool / "1.png").exists()
    assert sorted(os.listdir(tmp_path / "gone")) == ["1.png", "manifest.json"]

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(CheckpointError, match="No space left"):
        move_duplicates(tmp_path / "more", find_duplicates([pool]), [pool])
    assert len([path for path in pool.iterdir() if path.name.startswith("0")]) == 7


def test_reports_name_every_file(pool, tmp_path):
    search = find_duplicates([pool])
    write_report(tmp_path / "r.csv", search, {})
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["role"] for row in rows].count("keep") == 2
    assert len(rows) == 9
    assert {row["relation"] for row in rows} == {"", "near", "exact"}
    write_report(tmp_path / "r.json", search, {"distance": 4})
    content = read_manifest(tmp_path / "r.json")
    assert content["command"] == "data dedup"
    assert [row["path"] for row in content["files"]] == [row["path"] for row in rows]
    assert json.loads((tmp_path / "r.json").read_text())["files"][0]["sha256"]


def test_outputs_are_refused_before_the_search(tmp_path):
    (tmp_path / "there.csv").write_text("mine")
    for arguments, error, text in (
        ((tmp_path / "r.txt", None, False), OptionError, r"end its name in \.json or \.csv"),
        ((tmp_path / "there.csv", None, False), DataError, "is there already"),
        ((None, tmp_path / "there.csv", False), DataError, "--list: .* is there already"),
        ((None, tmp_path, True), DataError, "is a folder"),
    ):
        with pytest.raises(error, match=text):
            check_outputs(*arguments)
    check_outputs(tmp_path / "there.csv", Path("new.txt"), True)
