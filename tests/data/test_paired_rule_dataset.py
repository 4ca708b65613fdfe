"""PairedRuleDataset: what a sample is, every kind of source, sizes, errors."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.data.paired_rule_dataset import PairedRuleDataset


@pytest.fixture
def reside(tmp_path, image_writer):
    for number in range(3):
        image_writer(tmp_path / "gt" / f"{number}.png", 40, 50, number)
        for airlight in (8, 9):
            image_writer(tmp_path / "hazy" / f"{number}_0.{airlight}_0.04.jpg", 40, 50, 10 * number + airlight)
    return tmp_path


def opt(root, **options):
    return {
        "name": "r", "type": "PairedRuleDataset", "phase": "train", "dataroot_lq": str(root / "hazy"), "seed": 1,
        "dataroot_gt": str(root / "gt"), "pair": "prefix:1", "gt_size": 24, **options,
    }  # fmt: skip


def make(root, **options):
    dataset = PairedRuleDataset(opt(root, **options))
    dataset.set_epoch(0)
    return dataset


def bgr(path):
    return torch.from_numpy(cv2.imread(str(path))[:, :, ::-1].astype(np.float32).transpose(2, 0, 1) / np.float32(255))


def test_pairs_are_cut_and_turned_together(reside, tmp_path):
    shutil.copytree(reside / "gt", tmp_path / "copy")
    same = make(reside, dataroot_lq=str(tmp_path / "copy"), pair="same")
    for index in range(12):
        sample = same[index]
        assert torch.equal(sample["lq"], sample["gt"])
        assert sample["lq"].shape == (3, 24, 24)
    assert set(sample) == {"lq", "gt", "degradation", "lq_path", "gt_path"}


def test_validation_reads_whole_pairs(reside):
    dataset = make(reside, phase="val", gt_size=None, label=3)
    assert len(dataset) == 6
    sample = dataset[3]
    assert sample["lq_path"].endswith("1_0.9_0.04.jpg")
    assert sample["gt_path"].endswith("gt/1.png")
    assert torch.equal(sample["lq"], bgr(sample["lq_path"]))
    assert torch.equal(sample["gt"], bgr(sample["gt_path"]))
    assert sample["degradation"] == 3
    assert PairedRuleDataset.plan(opt(reside, label=3), "datasets.train").labels == 4


def test_concat_splits_one_picture(tmp_path, image_writer):
    path = image_writer(tmp_path / "wide" / "1.png", 30, 81)
    whole = bgr(path)
    for half, (lq, gt) in {
        "left": (whole[..., :40], whole[..., 41:]),
        "right": (whole[..., 41:], whole[..., :40]),
    }.items():
        dataset = PairedRuleDataset({
            "name": "d", "phase": "val", "dataroot_lq": str(tmp_path / "wide"), "pair": "concat", "lq_half": half,
        })  # fmt: skip
        assert torch.equal(dataset[0]["lq"], lq)
        assert torch.equal(dataset[0]["gt"], gt)


def test_matlab_arrays(tmp_path):
    from scipy.io import savemat

    lq, gt = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 24, 3), dtype=np.uint8)
    savemat(tmp_path / "test.mat", {"test_display": lq, "test_gt": gt})
    options = {"name": "u", "phase": "val", "dataroot_lq": str(tmp_path / "test.mat"), "pair": "mat"}
    dataset = PairedRuleDataset({**options, "mat_key_lq": "test_display", "mat_key_gt": "test_gt"})
    assert len(dataset) == 3
    np.testing.assert_array_equal((dataset[1]["lq"] * 255).round().numpy().transpose(1, 2, 0), lq[1])
    np.testing.assert_array_equal((dataset[1]["gt"] * 255).round().numpy().transpose(1, 2, 0), gt[1])
    with pytest.raises(DataError, match=r"unknown array 'test_dispaly'. Did you mean 'test_display'"):
        PairedRuleDataset({**options, "mat_key_lq": "test_dispaly", "mat_key_gt": "test_gt"})


def test_lists(reside):
    (reside / "list.txt").write_text("gt/2.png hazy/0_0.8_0.04.jpg\n", encoding="utf-8")
    dataset = make(
        reside, dataroot_lq=str(reside), dataroot_gt=None, pair="txtlist", pair_list=str(reside / "list.txt")
    )
    assert dataset[0]["gt_path"].endswith("gt/2.png")
    (reside / "list.txt").write_text("hazy/0_0.8_0.04.jpg gt/2.png\n", encoding="utf-8")
    other = {"pair": "txtlist", "pair_list": str(reside / "list.txt"), "list_order": "lq_gt"}
    sample = make(reside, dataroot_lq=str(reside), dataroot_gt=None, **other)[0]
    assert sample["lq_path"].endswith("0_0.8_0.04.jpg")
    assert sample["gt_path"].endswith("gt/2.png")
    with pytest.raises(OptionError, match=r"pair_list: this option is required by the rule 'txtlist'"):
        make(reside, pair="txtlist")
    with pytest.raises(OptionError, match=r"pair_list: only read by"):
        make(reside, pair_list="list.txt")


def test_unpaired_images_are_an_error_that_names_them_or_are_skipped(reside, image_writer):
    image_writer(reside / "hazy" / "7_0.8_0.04.jpg")
    for build in (lambda: make(reside), lambda: PairedRuleDataset.plan(opt(reside), "datasets.train").check()):
        with pytest.raises(
            DataError, match=r"1 of 7 degraded images have no clean one.*7_0\.8_0\.04\.jpg \(looked for 7 "
        ):
            build()
    assert len(make(reside, unpaired="skip")) == 6
    with pytest.raises(DataError, match=r"6 of 7 degraded|7 of 7 degraded"):
        make(reside, pair="same")


def test_different_sizes_are_refused_or_cut_around_the_centre(reside, image_writer):
    image_writer(reside / "gt" / "2.png", 60, 70, 2)
    with pytest.raises(DataError, match=r"2 pair\(s\) of different size: .*2_0\.8.*is 40 x 50, .*2\.png is 60 x 70"):
        PairedRuleDataset.plan(opt(reside), "datasets.train").check()
    with pytest.raises(DataError, match="'mismatch: centre' cuts the larger"):
        make(reside, phase="val", gt_size=None)[4]
    sample = make(reside, phase="val", gt_size=None, mismatch="centre")[4]
    assert torch.equal(sample["gt"], bgr(reside / "gt" / "2.png")[:, 10:50, 10:60])


def test_small_and_broken_images_are_found_before_training(reside):
    with pytest.raises(DataError, match=r"dataroot_lq: 6 image\(s\) smaller than gt_size 48"):
        PairedRuleDataset.plan(opt(reside, gt_size=48), "datasets.train").check()
    (reside / "gt" / "1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"dataroot_gt: 1 unreadable|dataroot_gt: 2 unreadable"):
        PairedRuleDataset.plan(opt(reside), "datasets.train").check()


def test_lmdb_pairs(reside, tmp_path):
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    names = [path.name for path in sorted((reside / "gt").iterdir())]
    for folder in ("lq", "gt"):
        make_lmdb_from_imgs(str(reside / "gt"), str(tmp_path / f"{folder}.lmdb"), names, [name[:-4] for name in names])
    options = {"dataroot_lq": str(tmp_path / "lq.lmdb"), "dataroot_gt": str(tmp_path / "gt.lmdb"), "pair": "same",
               "io_backend": {"type": "lmdb"}, "phase": "val", "gt_size": None}  # fmt: skip
    sample = make(reside, **options)[1]
    assert torch.equal(sample["gt"], bgr(reside / "gt" / "1.png"))


@pytest.mark.parametrize("factor", [2, 4])
def test_images_of_half_the_size_are_super_resolution_and_no_matter_of_cutting(reside, image_writer, factor):
    image_writer(reside / "gt" / "2.png", 40 * factor, 50 * factor, 2)
    with pytest.raises(
        DataError, match=f"{factor} times smaller: that is super-resolution by 'scale: {factor}'"
    ) as told:
        PairedRuleDataset.plan(opt(reside), "datasets.train").check()
    assert "mismatch" not in str(told.value)


def test_broken_matlab_files_are_one_message(tmp_path):
    import pickle

    from scipy.io import savemat

    savemat(tmp_path / "whole.mat", {"a": np.zeros((2, 8, 8, 3), np.uint8)}, do_compression=True)
    whole = (tmp_path / "whole.mat").read_bytes()
    contents = [b"", whole[:60], whole[:140], whole[: len(whole) // 2], whole[:130] + b"\xff" * 40, b"no matlab" * 40]
    for number, content in enumerate([*contents, pickle.dumps({"a": 1})]):
        file = tmp_path / f"{number}.mat"
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"{number}.mat"):
            PairedRuleDataset({"name": "u", "phase": "val", "dataroot_lq": str(file), "pair": "mat", "mat_key_lq": "a"})
