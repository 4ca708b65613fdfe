"""Complexity of image sets: each measure on images whose answer is known, the tiles, the rain layers, the command."""

from __future__ import annotations

import argparse
import math
import sys

import cv2
import numpy as np
import pytest

from basicsr_plugins.cli import complexity as command
from basicsr_plugins.core.errors import DataError, DependencyError, OptionError
from basicsr_plugins.studies import complexity
from basicsr_plugins.studies.tables import read_csv


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(dest="command"))
    parsed = parser.parse_args(["complexity", *(str(argument) for argument in arguments)])
    return parsed.func(parsed)


def noise(side=64, seed=0):
    return np.random.default_rng(seed).random((side, side, 3), dtype=np.float32)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    for index, size in enumerate([(130, 70), (64, 64), (40, 200)]):
        image = np.random.default_rng(index).integers(0, 255, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(path / f"{index}.png"), image)
    return path


@pytest.mark.parametrize("measure", complexity.MEASURES)
def test_a_flat_image_is_simplest_and_noise_is_most_complex(measure):
    flat = np.full((64, 64, 3), 0.5, dtype=np.float32)
    ramp = np.repeat(np.linspace(0.2, 0.8, 64, dtype=np.float32)[None, :, None], 64, 0).repeat(3, 2)
    values = [complexity.MEASURES[measure](image) for image in (flat, ramp, noise())]
    assert values == sorted(values)
    assert values[0] < values[1] < values[2]


def test_gradient_of_a_ramp_is_its_slope():
    ramp = (np.arange(52, dtype=np.float32) * 5 / 255)[None].repeat(20, 0)
    inner = complexity.gradient(ramp)
    # borders mirror, so the two outer columns have no slope
    assert inner == pytest.approx(5 / 255 * 50 / 52, rel=1e-4)


def test_entropy_of_two_flat_halves_is_one_bit_but_for_the_edge():
    halves = np.zeros((64, 256), dtype=np.float32)
    halves[:, 128:] = 1
    assert complexity.entropy(halves) == pytest.approx(1, abs=0.1)
    assert complexity.entropy(np.zeros((64, 64), dtype=np.float32)) == 0


def test_compressed_size_of_noise_is_a_byte_a_pixel():
    grey = np.random.default_rng(0).random((128, 128), dtype=np.float32)
    assert 1 < complexity.compressed_size(grey) < 1.05


def test_tiles_are_centred_and_do_not_overlap():
    image = np.arange(10 * 7 * 3).reshape(10, 7, 3)
    parts = list(complexity.tiles(image, 3))
    assert len(parts) == 6
    assert np.array_equal(parts[0], image[0:3, 0:3])
    assert np.array_equal(parts[-1], image[6:9, 3:6])
    assert [part is image for part in complexity.tiles(image, None)] == [True]
    columns = np.arange(8.0).reshape(1, 8).repeat(8, axis=0)
    (centre,) = complexity.tiles(columns.T + 10 * columns, 6)
    assert centre[0, 0] == 1 + 10  # a rim of one pixel all around


def test_set_is_the_mean_over_its_tiles_and_takes_a_scorer(folder):
    measured = complexity.measure_set(folder, tile=64, scorer=lambda image: float(image.shape[0]))
    row = measured.row()
    assert row["count"] == 3  # two tiles in the first image, one in the second, none in the third
    assert row["log2_count"] == pytest.approx(math.log2(3))
    assert row["network"] == 64
    assert row["entropy"] == pytest.approx(np.mean(measured.values["entropy"]))
    assert complexity.measure_set(folder, tile=None).count == 3


def test_rain_layers_are_seeded_and_grow_with_their_preset():
    rows = {preset: complexity.measure_layers(preset, 64, 12).row() for preset in ("small", "large")}
    assert rows["small"] == complexity.measure_layers("small", 64, 12).row()
    assert rows["small"] != complexity.measure_layers("small", 64, 12, seed=1).row()
    assert rows["small"]["compressed"] < rows["large"]["compressed"]
    assert rows["small"]["kind"] == "rain"


def test_command_writes_table_and_plot(folder, tmp_path, capsys):
    run(
        folder,
        "--tile",
        64,
        "--layers",
        3,
        "--rain",
        "small",
        "--csv",
        tmp_path / "c.csv",
        "--plot",
        tmp_path / "c.png",
    )
    rows = read_csv(tmp_path / "c.csv")
    assert [(row["set"], row["kind"], row["count"]) for row in rows] == [
        ("rain small", "rain", 3),
        ("photos", "background", 3),
    ]
    assert (tmp_path / "c.png").stat().st_size > 5000
    assert "photos" in capsys.readouterr().out


def test_command_takes_a_scorer_by_name(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_measure.py").write_text("def score(image):\n    return image.shape[2] + 0.5\n")
    monkeypatch.syspath_prepend(tmp_path)
    run(folder, "--tile", 64, "--rain", "--network", "my_measure:score")
    assert "3.5000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--rain", "smal"], OptionError, "Did you mean 'small'"),
        (["--tile", "-3"], OptionError, "--tile"),
        (["--layers", "0"], OptionError, "--layers"),
        (["--tile", "500"], DataError, "500 x 500 or larger"),
        (["--network", "numpy"], OptionError, "module:function"),
        (["--network", "no_such_module_x:f"], OptionError, "cannot be imported"),
        (["--network", "math:sqr"], OptionError, "Did you mean 'sqrt'"),
    ],
)
def test_command_refuses(folder, arguments, error, message):
    with pytest.raises(error, match=message):
        run(folder, "--layers", 1, *arguments)


def test_an_empty_or_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        complexity.measure_set(tmp_path / "nothing")
    with pytest.raises(DataError, match="no image"):
        complexity.measure_set(tmp_path)


def test_a_missing_matplotlib_is_said_before_the_work(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(complexity, "measure_set", None)
    with pytest.raises(DependencyError, match="plots"):
        run(folder, "--plot", tmp_path / "c.png")
