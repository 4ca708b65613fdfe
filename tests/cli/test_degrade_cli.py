"""``basicsr-plugins degrade``: copies, manifest, sheet, bad input."""

import argparse
import json

import cv2
import numpy as np
import pytest

from basicsr_plugins.cli import degrade as degrade_cli
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.registration import provided
from basicsr_plugins.degradations import build_degradation
from basicsr_plugins.degradations.sheet import SHEET_SEVERITIES, draw_sheet, sheet_degradations


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "a.png"), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    cv2.imwrite(str(folder / "b.jpg"), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    cv2.imwrite(str(folder / "c.png"), rng.integers(0, 65536, (40, 50, 3), dtype=np.uint16))
    cv2.imwrite(str(folder / "sub" / "d.png"), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    return folder


def run(*words):
    parser = argparse.ArgumentParser()
    degrade_cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["degrade", *map(str, words)])
    return args.func(args)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_copies_are_written_and_the_manifest_rebuilds_them(photos, tmp_path):
    assert run(photos, tmp_path / "one", "--with", "rain", "--severity", 0.5, "--seed", 1) == 0
    first = files(tmp_path / "one")
    assert set(first) == {"a.png", "b.png", "c.png"}
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert manifest["degradation"]["type"] == "Rain"
    assert [entry["image"] for entry in manifest["images"]] == ["a.png", "b.jpg", "c.png"]
    assert all(entry["params"]["severity"] == 0.5 for entry in manifest["images"])
    assert len({entry["params"]["field_seed"] for entry in manifest["images"]}) == 3
    run(photos, tmp_path / "again", "--manifest", tmp_path / "one" / "manifest.json")
    assert files(tmp_path / "again") == first
    run(photos, tmp_path / "same", "--with", "rain", "--severity", 0.5, "--seed", 1)
    assert files(tmp_path / "same") == first
    run(photos, tmp_path / "other", "--with", "rain", "--severity", 0.5, "--seed", 2)
    assert files(tmp_path / "other") != first
    deep = cv2.imread(str(tmp_path / "one" / "c.png"), cv2.IMREAD_UNCHANGED)
    assert deep.dtype == np.uint16
    assert deep.max() > 60000


def test_an_image_does_not_depend_on_its_neighbours(photos, tmp_path):
    run(photos, tmp_path / "all", "--with", "noise", "--recursive")
    run(photos / "b.jpg", tmp_path / "one", "--with", "noise")
    assert files(tmp_path / "all")["b.png"] == files(tmp_path / "one")["b.png"]
    assert "sub/d.png" in files(tmp_path / "all")


def test_several_degradations_and_mappings(photos, tmp_path):
    run(photos / "a.png", tmp_path / "out", "--with", "gaussian_blur", "{type: GaussianNoise, sigma: 3}", "jpeg")
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["images"][0]
    assert [step["type"] for step in entry["params"]["steps"]] == ["GaussianBlur", "GaussianNoise", "JPEG"]
    assert entry["params"]["steps"][1]["sigma"] == 3
    run(photos / "a.png", tmp_path / "again", "--manifest", tmp_path / "out" / "manifest.json")
    assert files(tmp_path / "again") == files(tmp_path / "out")


def test_equal_stems_do_not_overwrite_each_other(photos, tmp_path):
    (photos / "a.bmp").write_bytes((photos / "a.png").read_bytes())
    run(photos, tmp_path / "out", "--with", "noise")
    assert {"a.png.png", "a.bmp.png"} <= set(files(tmp_path / "out"))


def test_bad_input_is_refused_and_writes_nothing(photos, tmp_path):
    out = tmp_path / "out"
    for words, error, text in (
        (
            [photos, out, "--with", "rian"],
            OptionError,
            r"--with\.type: unknown degradation 'rian'. Did you mean 'rain'",
        ),
        ([photos, out, "--with", "{type: Rain, x: 1}"], OptionError, r"--with\.x: unknown option"),
        ([photos, out, "--with", "{type: Rain"], OptionError, "is no mapping such as"),
        ([photos, out], OptionError, "--with: name at least one"),
        ([photos, "--with", "rain"], OptionError, "OUT_DIR: name the folder"),
        ([photos, out, "--with", "rain", "--severity", 2], OptionError, "--severity: must lie between 0 and 1"),
        ([photos, out, "--with", "rain", "--seed", -1], OptionError, "--seed"),
        ([tmp_path / "phots", out, "--with", "rain"], DataError, r"Did you mean .*photos"),
        ([photos, photos, "--with", "rain", "--overwrite"], DataError, "is the folder of the clean images"),
        ([photos, out, "--manifest", photos / "a.png"], DataError, "is no manifest of"),
    ):
        with pytest.raises(error, match=text):
            run(*words)
        assert not out.exists()
    run(photos, out, "--with", "rain")
    with pytest.raises(DataError, match=r"3 file\(s\) are there already: a\.png"):
        run(photos, out, "--with", "noise")
    manifest = out / "manifest.json"
    with pytest.raises(DataError, match=r"3 file\(s\) are there already"):
        run(photos, out, "--manifest", manifest)
    assert run(photos, out, "--manifest", manifest, "--overwrite") == 0
    assert run(photos, out, "--with", "noise", "--overwrite") == 0
    (photos / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of its images are not in .*: b\.jpg"):
        run(photos, tmp_path / "less", "--manifest", manifest)


def test_the_list_names_everything(photos, capsys):
    assert run(photos, "--with", "list") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in provided("degradation"))


def test_sheet_has_one_row_per_degradation_and_one_column_per_severity(photos, tmp_path):
    image = np.random.default_rng(0).random((64, 80, 3), dtype=np.float32)
    rows = sheet_degradations()
    assert set(rows) == {kind.short for kind in provided("degradation").values()} - {"clean"}
    two = {"rain": rows["rain"], "noise": build_degradation("noise")}
    sheet = draw_sheet(image, two)
    cell = sheet.shape[0] // 2
    assert sheet.shape[1] == (1 + len(SHEET_SEVERITIES)) * sheet.shape[1] // 6
    columns = np.split(sheet[:cell].astype(int), 6, axis=1)
    distances = [np.abs(column[30:150] - columns[0][30:150]).mean() for column in columns[1:]]
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert run(photos / "a.png", "--sheet", tmp_path / "s" / "sheet.png", "--with", "rain", "noise") == 0
    assert cv2.imread(str(tmp_path / "s" / "sheet.png")).shape == sheet.shape
    with pytest.raises(OptionError, match="cannot be written"):
        run(photos / "a.png", "--sheet", tmp_path / "sheet.xyz", "--with", "rain")
