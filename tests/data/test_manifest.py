"""Manifests: every output its own name, nothing outside the folder, nothing through a link, no change unnoticed."""

import json
import os

import cv2
import numpy as np
import pytest

from basicsr_plugins.core.errors import DataError, PluginError
from basicsr_plugins.data.manifest import degrade_folder, rebuild_folder
from basicsr_plugins.degradations import build_degradation

CLASHING = (
    "a.bmp",
    "a.jpg",
    "a.jpg.png",
    "A.png",
    "b.png",
    "B.jpg",
    "b.jpg.jpg",
    "c.png",
    "c.d.png",
    "manifest.json.png",
)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(CLASHING):
        cv2.imwrite(str(folder / name), np.full((8, 8, 3), 20 * number, np.uint8))
    return folder


def outputs(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def degrade(source, target, name="Clean", **options):
    return degrade_folder(source, target, build_degradation(name), **options)


def test_every_image_has_an_output_of_its_own(photos, tmp_path):
    manifest = json.loads(degrade(photos, tmp_path / "out").read_text())
    names = [entry["output"] for entry in manifest["images"]]
    assert len({name.lower() for name in names}) == len(CLASHING)
    assert set(outputs(tmp_path / "out")) == {*names, "manifest.json"}
    for entry in manifest["images"]:
        clean, copy = (cv2.imread(str(path)) for path in (photos / entry["image"], tmp_path / "out" / entry["output"]))
        np.testing.assert_array_equal(clean, copy)
    assert json.loads(degrade(photos, tmp_path / "again").read_text()) == manifest
    rebuild_folder(photos, tmp_path / "rebuilt", tmp_path / "out" / "manifest.json")
    assert {**outputs(tmp_path / "rebuilt"), "manifest.json": b""} == {
        **outputs(tmp_path / "out"),
        "manifest.json": b"",
    }


def test_its_own_output_is_not_degraded_again(photos, tmp_path):
    for _ in range(2):
        degrade(photos, photos / "out", recursive=True, overwrite=True)
        assert len(outputs(photos / "out")) == len(CLASHING) + 1


def test_a_folder_and_a_file_of_one_name(tmp_path):
    (tmp_path / "in" / "a.png").mkdir(parents=True)
    for name in ("a.jpg", "a.png/b.png"):
        cv2.imwrite(str(tmp_path / "in" / name), np.zeros((8, 8, 3), np.uint8))
    degrade(tmp_path / "in", tmp_path / "out", recursive=True)
    assert len(outputs(tmp_path / "out")) == 3


def test_a_manifest_is_not_lost(photos, tmp_path):
    degrade(photos / "a.bmp", tmp_path / "out")
    with pytest.raises(DataError, match=r"1 file\(s\) are there already: manifest\.json"):
        degrade(photos / "c.png", tmp_path / "out")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("field", ["output", "image"])
@pytest.mark.parametrize(
    "name",
    ["../../x.png", "/tmp/x.png", "a/../../x.png", "..", "", "C:/x.png", "C:x.png", "\\\\host\\x.png", "..\\x.png",
     "a\0.png", 3, None],
)  # fmt: skip
def test_nothing_outside_the_folder(photos, tmp_path, field, name, version):
    from basicsr_plugins.data.manifest_file import read_manifest, write_manifest

    manifest = degrade(photos, tmp_path / "out")
    content = read_manifest(manifest)
    content["images"][0][field] = name
    if version == 2:  # with a right hash
        write_manifest(manifest, {key: value for key, value in content.items() if key != "version"})
    else:
        manifest.write_text(json.dumps({**content, "version": 1}))
    before = outputs(tmp_path)
    with pytest.raises(DataError, match="no relative path inside a folder"):
        rebuild_folder(photos, tmp_path / "other" / "deep", manifest)
    assert outputs(tmp_path) == before


@pytest.mark.parametrize("output", ["b.png", "B.png", "x.jpg", "run.sh"])
def test_outputs_are_pictures_of_different_names(photos, tmp_path, output):
    manifest = degrade(photos, tmp_path / "out")
    content = {**json.loads(manifest.read_text()), "version": 1}
    content["images"][0]["output"], content["images"][1]["output"] = "b.png", output
    manifest.write_text(json.dumps(content))
    with pytest.raises(DataError, match="two of its outputs are called|no \\.png file"):
        rebuild_folder(photos, tmp_path / "other", manifest)


def test_links_are_replaced_and_never_followed(photos, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    for name in ("c.png", "manifest.json"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "mine.txt")
    (tmp_path / "out" / "c.d.png").symlink_to(tmp_path / "nowhere.png")  # a broken one is there, too
    with pytest.raises(DataError, match=r"2 file\(s\) are there already"):
        degrade(photos, tmp_path / "out")
    degrade(photos, tmp_path / "out", overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "nowhere.png").exists()
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_a_linked_folder_leads_nowhere(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "sub" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="a link leads sub/a.png out of this folder"):
        degrade(tmp_path / "in", tmp_path / "out", recursive=True, overwrite=True)
    assert not os.listdir(tmp_path / "elsewhere")


def test_other_clean_images_are_noticed(photos, tmp_path):
    manifest = degrade(photos, tmp_path / "out", "rain")
    image = cv2.imread(str(photos / "c.png"))
    cv2.imwrite(str(photos / "c.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 9])  # other bytes, the same pixels
    rebuild_folder(photos, tmp_path / "again", manifest)
    image[0, 0, 0] ^= 1
    cv2.imwrite(str(photos / "c.png"), image)
    with pytest.raises(DataError, match=r"c\.png: is not the image that"):
        rebuild_folder(photos, tmp_path / "third", manifest)


def test_no_flipped_bit_is_silent(photos, tmp_path):
    manifest = degrade(photos, tmp_path / "out", "rain")
    whole = manifest.read_bytes()
    content = json.loads(whole)
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(200):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        manifest.write_bytes(damaged)
        try:
            same = json.loads(bytes(damaged).decode()) == content
        except ValueError:
            same = False
        if same:  # a space became another kind of white space
            continue
        refused += 1
        with pytest.raises(PluginError):
            rebuild_folder(photos, tmp_path / f"x{number}", manifest)
        assert not (tmp_path / f"x{number}").exists()
    assert refused > 150


def test_version_1_is_read_and_a_later_one_refused(photos, tmp_path):
    manifest = degrade(photos, tmp_path / "out", "rain")
    content = json.loads(manifest.read_text())
    assert content["version"] == 2
    old = {
        **content,
        "version": 1,
        "images": [{k: v for k, v in e.items() if k != "sha256"} for e in content["images"]],
    }
    del old["sha256"]
    manifest.write_text(json.dumps(old))
    rebuild_folder(photos, tmp_path / "again", manifest)
    assert outputs(tmp_path / "again").items() <= outputs(tmp_path / "out").items()
    for version in (3, "2", True, None, [1]):
        manifest.write_text(json.dumps({**content, "version": version}))
        with pytest.raises(DataError, match="is of version"):
            rebuild_folder(photos, tmp_path / "later", manifest)


HEAD = '{"version": 1, "degradation": "rain", "images": '


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "null", "{}", '{"version": 1}', "[" * 5000, HEAD + "3}", HEAD + "[3]}",
     HEAD + '[{"image": "a", "output": "b", "params": 3}]}'],
)  # fmt: skip
def test_anything_else_is_no_manifest(photos, tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(DataError, match="is no manifest of"):
        rebuild_folder(photos, tmp_path / "out", tmp_path / "m.json")
