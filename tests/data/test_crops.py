"""Sub-images: their pixels and names, pairs, odd files, and runs that are stopped and started again."""

import hashlib
import json
import os
import struct

import cv2
import numpy as np
import pytest

from basicsr_plugins.core import atomic
from basicsr_plugins.core.errors import CheckpointError, DataError, OptionError
from basicsr_plugins.data import crops
from basicsr_plugins.data.crops import JOURNAL, crop_folder
from basicsr_plugins.data.images import read_image
from basicsr_plugins.data.windows import Cutting

CUTTING = Cutting(size=16, step=12)


def crop(*arguments, **options):
    return crop_folder(*arguments, **{"workers": 2, "say": lambda text: None, **options})


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def read(path):
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)


def test_sub_images_are_the_pixels_of_their_windows(photos, tmp_path):
    report = crop(photos, tmp_path / "out", CUTTING)
    entries = manifest(tmp_path / "out")["images"]
    assert report.written == len(entries) == len(names(tmp_path / "out")) > 5 * 6
    assert entries[0]["output"] == "0_s001.png"
    for entry in entries:
        top, left, height, width = entry["window"]
        data = (tmp_path / "out" / entry["output"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert entry["image_sha256"] == hashlib.sha256((photos / entry["image"]).read_bytes()).hexdigest()
        whole = read_image(photos / entry["image"])
        assert np.array_equal(read(tmp_path / "out" / entry["output"]), whole[top : top + height, left : left + width])


def test_depth_and_grey_stay_alpha_goes_and_pictures_are_upright(tmp_path):
    folder, random = tmp_path / "in", np.random.default_rng(0)
    folder.mkdir()
    deep = random.integers(0, 65536, (20, 24, 3), dtype=np.uint16)
    cv2.imwrite(str(folder / "deep.png"), deep)
    grey = random.integers(0, 256, (20, 24), dtype=np.uint8)
    cv2.imwrite(str(folder / "grey.png"), grey)
    clear = random.integers(0, 256, (20, 24, 4), dtype=np.uint8)
    cv2.imwrite(str(folder / "clear.png"), clear)
    encoded = cv2.imencode(".jpg", np.zeros((20, 40, 3), np.uint8))[1].tobytes()
    block = b"Exif\x00\x00" + struct.pack("<4sIHHHIHHI", b"II*\x00", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    turned = encoded[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(block)) + block + encoded[2:]
    (folder / "turned.jpg").write_bytes(turned)
    report = crop(folder, tmp_path / "out", Cutting(size=64, step=64))
    assert (report.written, report.small, report.alpha) == (4, 4, 1)
    assert np.array_equal(read(tmp_path / "out" / "deep_s001.png"), deep)
    assert np.array_equal(read(tmp_path / "out" / "grey_s001.png"), grey)
    assert np.array_equal(read(tmp_path / "out" / "clear_s001.png"), clear[:, :, :3])
    assert read(tmp_path / "out" / "turned_s001.png").shape == (40, 20, 3)


@pytest.fixture
def pair(tmp_path, image_writer):
    """Return folders of clean images, one with a rest, and of ones of half the size."""
    for number in range(3):
        path = image_writer(tmp_path / "gt" / f"{number}.png", 40 + number, 48, number)
        small = cv2.imread(str(path))[: 40 + number // 2 * 2 : 2, ::2]
        (tmp_path / "lq").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "lq" / f"{number}x2.png"), small)
    return tmp_path


def test_pairs_stay_pairs(pair):
    report = crop(
        pair / "gt",
        pair / "gs",
        Cutting(size=16, step=12, scale=2),
        pair=(pair / "lq", pair / "ls"),
        rule="replace:x2->",
    )
    assert names(pair / "gs") == names(pair / "ls") != []
    assert report.written == 2 * len(names(pair / "gs"))
    for name in names(pair / "gs"):
        assert np.array_equal(read(pair / "gs" / name)[::2, ::2], read(pair / "ls" / name))
    clean, degraded = manifest(pair / "gs")["images"], manifest(pair / "ls")["images"]
    assert [entry["window"] for entry in clean] == [[2 * side for side in entry["window"]] for entry in degraded]
    assert degraded[0]["image"] == "0x2.png"


def test_wrong_pairs_are_said(pair):
    target = (pair / "lq", pair / "ls")
    with pytest.raises(DataError, match=r"3 degraded image.* --pair-rule 'replace:x2->' pairs them all"):
        crop(pair / "gt", pair / "gs", CUTTING, pair=target)
    with pytest.raises(OptionError, match="--pair-rule: unknown pairing rule 'mat'"):
        crop(pair / "gt", pair / "gs", CUTTING, pair=target, rule="mat")
    with pytest.raises(DataError, match=r"no image of .* could be cut: .*not 4 times as large"):
        crop(pair / "gt", pair / "gs", Cutting(16, 16, 0, 4), pair=target, rule="replace:x2->")
    with pytest.raises(OptionError, match="--scale 2: it belongs to --pair"):
        crop(pair / "gt", pair / "gs", Cutting(16, 16, 0, 2))
    for outputs in ((pair / "gs", pair / "gs"), (pair / "lq", pair / "ls"), (pair / "gs", pair / "gt")):
        with pytest.raises(DataError, match="is named twice"):
            crop(pair / "gt", outputs[0], CUTTING, pair=(pair / "lq", outputs[1]), rule="replace:x2->")


def test_several_degraded_images_of_one_clean_one_are_called_as_themselves(tmp_path, image_writer):
    image_writer(tmp_path / "gt" / "7.png")
    for haze in ("0.8", "0.9"):
        image_writer(tmp_path / "lq" / f"7_{haze}.jpg")
    crop(tmp_path / "gt", tmp_path / "gs", Cutting(64, 64), pair=(tmp_path / "lq", tmp_path / "ls"), rule="prefix:1")
    assert names(tmp_path / "gs") == names(tmp_path / "ls") == ["7_0.8_s001.png", "7_0.9_s001.png"]


def test_names_are_unique_and_odd_ones_work(tmp_path, image_writer):
    folder = tmp_path / "in 50%"
    odd = ["a.png", "a.jpg", "B c#1%.png", "b.png", "café é.png", "sub/a.png", "sub.png"]
    for name in odd:
        image_writer(folder / name)
    for hidden in (".hidden.png", ".cache/x.png", "@eaDir/a.png", "sub/out/old_s001.png"):
        image_writer(folder / hidden)
    crop(folder, folder / "sub" / "out", Cutting(64, 64), recursive=True, overwrite=True)
    made = [entry["output"] for entry in manifest(folder / "sub" / "out")["images"]]
    assert sorted(made) == sorted(
        ["a.png_s001.png", "a.jpg_s001.png", "B c#1%_s001.png", "b_s001.png", "café é_s001.png", "sub/a_s001.png",
         "sub_s001.png"]
    )  # fmt: skip


def test_broken_files_are_said_and_the_others_cut(photos, tmp_path):
    whole = (photos / "2.png").read_bytes()
    (photos / "2.png").write_bytes(whole[: len(whole) // 2])
    (photos / "3.png").write_bytes(b"")
    said = []
    report = crop(photos, tmp_path / "out", CUTTING, say=said.append)
    assert len(report.failed) == 2
    assert any("2.png: is cut off before its end" in text for text in report.failed)
    assert {entry["image"] for entry in manifest(tmp_path / "out")["images"]} == {"0.png", "1.png", "4.png"}
    for number in (0, 1, 4):
        (photos / f"{number}.png").unlink()
    with pytest.raises(DataError, match="no image of .* could be cut"):
        crop(photos, tmp_path / "other", CUTTING)


def test_small_images_are_kept_skipped_or_refused(photos, tmp_path):
    assert crop(photos, tmp_path / "keep", Cutting(42, 42)).small == 2
    assert read(tmp_path / "keep" / "0_s001.png").shape == (40, 42, 3)
    crop(photos, tmp_path / "skip", Cutting(42, 42, small="skip"))
    assert {entry["image"] for entry in manifest(tmp_path / "skip")["images"]} == {"2.png", "3.png", "4.png"}
    with pytest.raises(DataError, match=r"2 image\(s\) smaller than --size 42: .*0\.png is 40 x 48"):
        crop(photos, tmp_path / "refuse", Cutting(42, 42, small="refuse"))
    assert not (tmp_path / "refuse").exists()


def test_a_second_run_does_only_what_is_missing(photos, tmp_path, image_writer):
    out = tmp_path / "out"
    first = crop(photos, out, CUTTING)
    before = {name: os.stat(out / name).st_mtime_ns for name in names(out)}
    assert crop(photos, out, CUTTING).written == 0
    image_writer(photos / "9.png", 16, 16)
    (out / "1_s002.png").unlink()
    os.utime(photos / "0.png")
    with pytest.raises(DataError, match=r"file\(s\) are there already: 0_s001\.png"):
        crop(photos, out, CUTTING)
    report = crop(photos, out, CUTTING, overwrite=True)
    assert report.finished == 3
    assert len(names(out)) == first.written + 1 == len(manifest(out)["images"])
    same = [name for name in before if os.stat(out / name).st_mtime_ns == before[name]]
    assert {name[0] for name in same} == {"2", "3", "4"}


def test_files_of_others_are_kept(photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "1_s003.png").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"1 file\(s\) are there already: 1_s003\.png"):
        crop(photos, out, CUTTING)
    assert names(out) == ["1_s003.png"]
    assert (out / "1_s003.png").read_bytes() == b"mine"
    (out / "1_s003.png").unlink()
    (out / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"manifest\.json"):
        crop(photos, out, CUTTING)
    crop(photos, out, CUTTING, overwrite=True)
    with pytest.raises(DataError, match="OUTPUT is the folder of the images"):
        crop(photos, photos, CUTTING)


def test_sub_images_of_other_settings_are_found_and_removed(photos, tmp_path):
    out = tmp_path / "out"
    crop(photos, out, CUTTING)
    (out / "mine_s001.png").write_bytes(b"mine")
    many = len(names(out))
    with pytest.raises(DataError, match="are there already"):
        crop(photos, out, Cutting(size=32, step=32))
    report = crop(photos, out, Cutting(size=32, step=32), overwrite=True)
    assert len(names(out)) == report.written + 1 < many
    assert len(report.stale) == many - 1 - report.written
    (photos / "4.png").unlink()
    stale = crop(photos, out, Cutting(size=32, step=32)).stale
    assert {path.name[:5] for path in stale} == {"4_s00"}
    assert stale[0].exists()


class Stop(Exception):
    """Ends a run at a chosen write."""


def test_a_run_that_was_stopped_anywhere_goes_on(photos, tmp_path, monkeypatch):
    crop(photos, tmp_path / "whole", CUTTING)
    out, encode, cut = tmp_path / "out", crops.as_png, crops._cut

    def run(limit):
        count = 0

        def counted(image, compression):
            nonlocal count
            count += 1
            if count > limit:
                raise Stop
            return encode(image, compression)

        monkeypatch.setattr(crops, "as_png", counted)
        monkeypatch.setattr(crops, "_cut", cut)
        return crop(photos, out, CUTTING, workers=1)

    for limit in (0, 3, 20):
        with pytest.raises(Stop):
            run(limit)
        assert not (out / "manifest.json").exists()
    (out / "0_s001.png.999999999.incomplete").write_bytes(b"half")
    with (out / JOURNAL).open("a") as journal:
        journal.write('{"source": "4", "ho')
    assert run(1000).finished > 0
    assert names(out) == names(tmp_path / "whole")
    assert manifest(out)["images"] == manifest(tmp_path / "whole")["images"]
    assert not [name for name in os.listdir(out) if atomic.is_leftover(name)]
    assert run(0).written == 0


def test_a_full_disk_ends_the_run(photos, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(CheckpointError, match=r"_s001\.png cannot be written: .*No space left"):
        crop(photos, tmp_path / "out", CUTTING)
    assert names(tmp_path / "out") == []


def test_nothing_is_written_through_a_link(tmp_path, image_writer):
    image_writer(tmp_path / "in" / "sub" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="a link leads sub/a_s001.png, .* out of this folder"):
        crop(tmp_path / "in", tmp_path / "out", CUTTING, recursive=True)


def test_workers_do_not_change_the_result(photos, tmp_path):
    for workers in (1, 4):
        crop(photos, tmp_path / str(workers), CUTTING, workers=workers)
    assert manifest(tmp_path / "1") == manifest(tmp_path / "4")
    with pytest.raises(OptionError, match="--workers: must be 1 or more"):
        crop(photos, tmp_path / "0", CUTTING, workers=0)
