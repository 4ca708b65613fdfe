"""``basicsr-plugins data check``: counts, offenders, exit codes."""

import argparse

import cv2
import numpy as np
import pytest
import yaml

from basicsr_plugins.cli import data as data_cli
from basicsr_plugins.errors import OptionError


def picture(path, height=32, width=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def pairs(tmp_path):
    for number in range(4):
        picture(tmp_path / "lq" / f"{number}.png")
        picture(tmp_path / "gt" / f"{number}.png")
    return tmp_path


def check(root, datasets, *flags):
    file = root / "x.yml"
    file.write_text(yaml.safe_dump(datasets), encoding="utf-8")
    parser = argparse.ArgumentParser()
    data_cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["data", "check", "-opt", str(file), *flags])
    return args.func(args)


def section(root, **more):
    return {"name": "s", "type": "PairedRuleDataset", "dataroot_lq": str(root / "lq"), "dataroot_gt": str(root / "gt"),
            "gt_size": 16, **more}  # fmt: skip


def test_a_good_set_is_counted_against_the_published_number(pairs, capsys):
    assert (
        check(pairs, {"datasets": {"train": section(pairs, expected_count=4), "val": section(pairs, expected_count=5)}})
        == 0
    )
    out = capsys.readouterr().out
    assert "datasets.train: 4 pairs, as published (4)" in out
    assert "datasets.val: 4 pairs, published are 5" in out
    assert out.count("nothing wrong") == 2
    assert check(pairs, {"datasets": {"val": section(pairs, expected_count=5)}}, "--strict") == 1


def test_every_kind_of_offender_is_named_and_the_rest_counted(pairs, capsys):
    for number in range(10, 18):
        picture(pairs / "lq" / f"{number}.png")
    picture(pairs / "gt" / "extra.png")
    picture(pairs / "gt" / "1.png", 40, 40)
    picture(pairs / "lq" / "3.png", 12, 12)
    picture(pairs / "gt" / "3.png", 12, 12)
    whole = (pairs / "lq" / "2.png").read_bytes()
    (pairs / "lq" / "2.png").write_bytes(whole[:-200])
    assert check(pairs, {"train": section(pairs)}) == 1
    out = capsys.readouterr().out
    assert "datasets.train: 4 pairs" in out
    assert "8 without a clean image" in out
    assert "10.png (looked for 10.png" in out
    assert "... and 3 more" in out
    assert "1.png is 32 x 32, " in out
    assert "2.png cannot be decoded to its end" in out
    assert "3.png is 12 x 12 (h x w), smaller than gt_size 16" in out
    assert "1 clean images that nothing refers to" in out
    assert "extra.png" in out


def test_damage_inside_a_file_needs_the_full_look(pairs, capsys):
    whole = bytearray((pairs / "lq" / "2.png").read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (pairs / "lq" / "2.png").write_bytes(bytes(whole))
    assert check(pairs, {"train": section(pairs)}, "--quick") == 0
    assert check(pairs, {"train": section(pairs)}) == 1
    assert "2.png cannot be decoded to its end" in capsys.readouterr().out


def test_mixes_stock_sets_and_clean_folders(pairs, capsys):
    stock = {"type": "PairedImageDataset", "dataroot_lq": str(pairs / "lq"), "dataroot_gt": str(pairs / "gt")}
    clean = {"type": "DegradationDataset", "dataroot_gt": str(pairs / "gt"), "degradations": ["Rain"]}
    rain = {"type": "RainSynthesisDataset", "dataroot_gt": str(pairs / "gt"), "tile_size": 16}
    mix = {"name": "m", "type": "AllInOneDataset", "gt_size": 16, "children": {"a": stock, "b": clean, "c": rain}}
    assert check(pairs, {"datasets": {"train": mix}}) == 0
    out = capsys.readouterr().out
    assert "datasets.train.children.a: 4 pairs" in out
    assert "datasets.train.children.b: 4 images" in out
    assert "datasets.train.children.c: 4 images" in out


def test_a_missing_folder_does_not_hide_the_other_sets(pairs, capsys):
    (pairs / "lqq").mkdir()
    assert (
        check(pairs, {"datasets": {"train": section(pairs, dataroot_lq=str(pairs / "lgg")), "val": section(pairs)}})
        == 1
    )
    out = capsys.readouterr().out
    assert "datasets.train.dataroot_lq: there is no folder" in out
    assert "datasets.val: 4 pairs" in out


def test_a_bare_data_set_and_wrong_files(pairs, capsys):
    assert check(pairs, section(pairs)) == 0
    assert "datasets.train: 4 pairs" in capsys.readouterr().out
    with pytest.raises(OptionError, match="holds no options"):
        check(pairs, [1])
    parser = argparse.ArgumentParser()
    data_cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["data", "check", "-opt", "none.yml"])
    with pytest.raises(OptionError, match=r"-opt: none\.yml cannot be read"):
        args.func(args)
