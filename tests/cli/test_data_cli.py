"""``basicsr-plugins data check``: counts, offenders, exit codes."""

import argparse

import cv2
import numpy as np
import pytest
import yaml

from basicsr_plugins.cli import data as data_cli
from basicsr_plugins.core.errors import OptionError


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
    assert check(pairs, {"datasets": {"val": section(pairs, expected_count=9)}}) == 1  # a download that broke off


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
    assert check(pairs, {"train": section(pairs)}, "--show", "2") == 1
    assert "... and 6 more" in capsys.readouterr().out


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
    with pytest.raises(OptionError, match=r"none\.yml: the option file cannot be read"):
        args.func(args)


def test_lmdb_and_matlab_images_are_read_too(pairs, capsys):
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs
    from scipy.io import savemat

    names = [f"{number}.png" for number in range(4)]
    for folder in ("lq", "gt"):
        make_lmdb_from_imgs(str(pairs / folder), str(pairs / f"{folder}.lmdb"), names, [name[:-4] for name in names])
    roots = {
        "dataroot_lq": str(pairs / "lq.lmdb"),
        "dataroot_gt": str(pairs / "gt.lmdb"),
        "io_backend": {"type": "lmdb"},
    }
    assert check(pairs, {"train": section(pairs, **roots)}) == 0
    assert "datasets.train: 4 pairs" in capsys.readouterr().out
    assert check(pairs, {"train": section(pairs, **{**roots, "gt_size": 64})}) == 1
    assert "4 unreadable or mismatched" in capsys.readouterr().out
    with (
        (pairs / "gt.lmdb" / "meta_info.txt").open("a") as meta,
        (pairs / "lq.lmdb" / "meta_info.txt").open("a") as other,
    ):
        meta.write("9.png (32,32,3) 1\n")
        other.write("9.png (32,32,3) 1\n")
    assert check(pairs, {"train": section(pairs, **roots)}) == 1
    assert "names '9', its data does not" in capsys.readouterr().out
    arrays = np.zeros((2, 3, 20, 20, 3), dtype=np.uint8)
    savemat(pairs / "x.mat", {"a": arrays[0], "b": arrays[1]})
    mat = {
        "dataroot_lq": str(pairs / "x.mat"),
        "dataroot_gt": None,
        "pair": "mat",
        "mat_key_lq": "a",
        "mat_key_gt": "b",
    }
    assert check(pairs, {"train": section(pairs, **mat)}) == 0
    assert "datasets.train: 3 pairs" in capsys.readouterr().out
