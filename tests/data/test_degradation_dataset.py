"""DegradationDataset: samples, labels, ways to assign, options, readers, errors."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.data.degradation_dataset import DegradationDataset
from basicsr_plugins.data.loader_options import PatchOptions
from basicsr_plugins.data.patches import choose_patch


def make(photos, **options):
    dataset = DegradationDataset({
        "name": "photos", "type": "DegradationDataset", "phase": "train", "dataroot_gt": str(photos), "gt_size": 24,
        "degradations": ["GaussianNoise", "Rain", "Haze"], "seed": 1, **options,
    })  # fmt: skip
    dataset.set_epoch(0)
    return dataset


def test_a_sample_is_what_basicsr_and_a_classifier_need(photos):
    dataset = make(photos, return_map=True, return_mask=True, return_params=True)
    for index in range(10):
        sample = dataset[index]
        assert set(sample) == {
            "lq", "gt", "degradation", "lq_path", "gt_path", "degradation_map", "rain_mask", "params",
        }  # fmt: skip
        assert sample["lq"].shape == sample["gt"].shape == (3, 24, 24)
        assert sample["lq"].dtype == sample["gt"].dtype == torch.float32
        assert 0 <= sample["gt"].min() <= sample["gt"].max() <= 1
        assert sample["degradation"] in (0, 1, 2)
        assert sample["degradation_map"].dtype == torch.int64
        assert (sample["degradation_map"] == sample["degradation"]).all()
        assert sample["rain_mask"].shape == (1, 24, 24)
        assert bool(sample["rain_mask"].any()) == (sample["degradation"] == 1)
        assert json.loads(sample["params"])["type"] == ["GaussianNoise", "Rain", "Haze"][sample["degradation"]]
        assert not torch.equal(sample["lq"], sample["gt"])
    assert dataset.num_degradations == 3
    assert dataset.opt["name"] == "photos"


def test_pixels_are_rgb_and_equal_to_the_file(photos):
    dataset = make(photos, phase="val", gt_size=None, degradations=["Clean"])
    image = cv2.imread(str(photos / "2.png"))[:, :, ::-1].astype(np.float32) / 255.0
    np.testing.assert_array_equal(dataset[2]["gt"].numpy().transpose(1, 2, 0), image)
    torch.testing.assert_close(dataset[2]["lq"], dataset[2]["gt"], rtol=0, atol=0)


def test_the_threshold_of_the_rain_mask_is_an_option(photos):
    rain = [{"type": "Rain", "preset": "large", "beta": 1.0}]
    low, high = (make(photos, degradations=rain, return_mask=True, mask_threshold=at)[0] for at in (0.05, 0.6))
    assert torch.equal(low["lq"], high["lq"])
    assert high["rain_mask"].sum() < low["rain_mask"].sum()


def test_random_assignment_follows_weights_and_labels(photos):
    dataset = make(
        photos, degradations=[{"type": "Haze", "weight": 3, "label": 4}, {"type": "GaussianNoise", "label": 1}]
    )
    labels = [dataset[index]["degradation"] for index in range(200)]
    assert labels.count(4) == pytest.approx(150, abs=25)
    assert set(labels) == {1, 4}
    assert dataset.num_degradations == 5
    named = [
        {"type": "Haze", "label": 4},
        "Rain",
        {"type": "Snow", "label": 4, "name": "flakes"},
        {"type": "Haze", "label": 4},
    ]
    assert DegradationDataset.plan({"dataroot_gt": "x", "degradations": named}, "datasets.train").label_names == {
        1: "rain",
        4: "haze/flakes",
    }
    assert (
        DegradationDataset.plan(
            {"dataroot_gt": "x", "degradations": [{"type": "Haze", "label": 4}]}, "datasets.train"
        ).labels
        == 5
    )


def test_assign_all_pairs_every_image_with_every_degradation(photos):
    dataset = make(photos, phase="val")
    assert len(dataset) == 15
    seen = {(sample["gt_path"], sample["degradation"]) for sample in dataset}
    assert len(seen) == 15
    assert len({sample["lq_path"] for sample in dataset}) == 15  # BasicSR names its pictures after it


def test_assign_cycle_is_even_and_moves_with_every_pass(photos):
    dataset = make(photos, assign="cycle", degradations=["Haze", "GaussianNoise", "Rain", "Snow", "LowLight"])
    dataset.set_epoch(0)
    first = [dataset[index]["degradation"] for index in range(5)]
    assert sorted(first) == [0, 1, 2, 3, 4]
    assert [dataset[index + 5]["degradation"] for index in range(5)] != first
    dataset.set_epoch(1)
    assert [dataset[index]["degradation"] for index in range(5)] != first


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_assign_cycle_shows_each_image_with_every_degradation(photos, count):
    dataset = make(photos, gt_size=8, assign="cycle", degradations=["Clean", *[{"type": "BitDepth"}] * (count - 1)])
    dataset.set_epoch(0)
    for image in range(5):
        labels = [dataset[image + 5 * repeat]["degradation"] for repeat in range(count)]
        assert sorted(labels) == list(range(count))


def test_validation_takes_the_whole_image_the_centre_or_a_multiple(photos):
    whole = make(photos, phase="val", gt_size=None, degradations=["Clean"])
    assert whole[1]["gt"].shape == (3, 41, 50)
    centre = make(photos, phase="val", gt_size=20, degradations=["Clean"])
    np.testing.assert_array_equal(centre[1]["gt"], whole[1]["gt"][:, 10:30, 15:35])
    multiple = make(photos, phase="val", gt_size=None, degradations=["Clean"], multiple_of=16)
    np.testing.assert_array_equal(multiple[1]["gt"], whole[1]["gt"][:, :32, :48])


def test_training_crops_and_turns(photos):
    plain = make(photos, degradations=["Clean"], use_hflip=False, use_rot=False)
    turned = make(photos, degradations=["Clean"])
    whole = make(photos, degradations=["Clean"], phase="val", gt_size=None)[0]["gt"]
    crops = {plain[index * 5]["gt"].numpy().tobytes() for index in range(30)}
    assert len(crops) > 20
    windows = whole.unfold(1, 24, 1).unfold(2, 24, 1)
    assert (windows == plain[0]["gt"][:, None, None]).flatten(3).all(-1).all(0).any()  # a window of the image

    def variants(crop):
        for swapped in (crop, crop.transpose(1, 2)):
            for flips in ((), (1,), (2,), (1, 2)):
                yield torch.flip(swapped, flips)

    pairs = [(plain[index]["gt"], turned[index]["gt"]) for index in range(40)]
    assert all(any(torch.equal(b, variant) for variant in variants(a)) for a, b in pairs)
    used = {next(k for k, variant in enumerate(variants(a)) if torch.equal(b, variant)) for a, b in pairs}
    assert len(used) == 8


def test_every_window_can_be_cut():
    options = PatchOptions(phase="train", gt_size=24)
    rng = np.random.default_rng(0)
    patches = [choose_patch((25, 26), options, rng, "x") for _ in range(60)]
    assert {(patch.top, patch.left) for patch in patches} == {(top, left) for top in range(2) for left in range(3)}


def test_mean_and_std_normalise_as_in_basicsr(photos):
    plain = make(photos, phase="val", degradations=["Clean"])[0]
    scaled = make(photos, phase="val", degradations=["Clean"], mean=[0.5, 0.4, 0.3], std=[0.5, 0.25, 0.2])[0]
    expected = (plain["gt"] - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 0.2]).view(
        3, 1, 1
    )
    torch.testing.assert_close(scaled["gt"], expected)
    torch.testing.assert_close(scaled["lq"], expected)


def test_cutmix_labels_pixels(photos):
    dataset = make(photos, cutmix={"probability": 1.0})
    mixed = 0
    for index in range(20):
        sample = dataset[index]
        labels = sample["degradation_map"]
        mixed += len(labels.unique()) == 2
        assert sample["degradation"] == labels.flatten().mode().values
    assert mixed > 12
    for sample in make(photos, cutmix={"probability": 1.0, "regions": 3}, return_params=True):
        params = json.loads(sample["params"])
        kinds = [params["ground"]["type"], *(region["type"] for region in params["regions"])]
        assert len(kinds) == 4
        assert all(one != other for one, other in zip(kinds, kinds[1:]))
    never = make(photos, cutmix={"probability": 0.0})[0]
    assert (never["degradation_map"] == never["degradation"]).all()


def test_depth_maps_reach_the_haze_with_the_same_crop(photos, tmp_path):
    maps = tmp_path / "depth"
    maps.mkdir()
    for path in photos.iterdir():
        height, width = cv2.imread(str(path)).shape[:2]
        ramp = np.linspace(0, 65535, width).astype(np.uint16)
        cv2.imwrite(str(maps / path.name), np.broadcast_to(ramp, (height, width)).copy())
    haze = [{"type": "Haze", "beta": 2.0, "airlight": 1.0}]
    dataset = make(photos, dataroot_depth=str(maps), degradations=haze, use_hflip=False, use_rot=False)
    sample = dataset[0]
    transmission = (1 - sample["lq"]).mean((0, 1)) / (1 - sample["gt"]).mean((0, 1))
    assert (transmission.diff() < 0).all()  # farther to the right
    inverse = make(
        photos, dataroot_depth=str(maps), depth_far="black", degradations=haze, use_hflip=False, use_rot=False
    )
    sample = inverse[0]
    assert (((1 - sample["lq"]).mean((0, 1)) / (1 - sample["gt"]).mean((0, 1))).diff() > 0).all()
    (maps / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 image\(s\) without a depth map: .*3\.png"):
        make(photos, dataroot_depth=str(maps))


def test_grey_alpha_and_sixteen_bit_files(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (20, 20), dtype=np.uint8)
    colour16 = rng.integers(0, 65536, (20, 20, 3), dtype=np.uint16)
    grey16 = rng.integers(0, 65536, (20, 20), dtype=np.uint16)
    alpha = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    for name, image in {"a_grey": grey, "b_16": colour16, "c_grey16": grey16, "d_alpha": alpha}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    cv2.imwrite(str(tmp_path / "e_16.tif"), colour16)
    for cache in ("none", "ram"):
        dataset = make(tmp_path, phase="val", gt_size=None, degradations=["Clean"], cache=cache)
        images = [dataset[index]["gt"].numpy().transpose(1, 2, 0) for index in range(5)]
        np.testing.assert_allclose(images[0], np.repeat(grey[:, :, None], 3, 2) / 255, atol=1e-6)
        np.testing.assert_allclose(images[1], colour16[:, :, ::-1] / 65535, atol=1e-6)
        np.testing.assert_allclose(images[2], np.repeat(grey16[:, :, None], 3, 2) / 65535, atol=1e-6)
        np.testing.assert_allclose(images[3], alpha[:, :, 2::-1] / 255, atol=1e-6)
        np.testing.assert_allclose(images[4], colour16[:, :, ::-1] / 65535, atol=1e-6)


def test_meta_file_recursion_and_lmdb_name_the_same_images(photos, tmp_path):
    nested = tmp_path / "nested" / "inner"
    shutil.copytree(photos, nested)
    shutil.copy(photos / "4.png", photos / "one more.png")
    (tmp_path / "list.txt").write_text("1.png (41,50,3)\n3.png\none more.png\n", encoding="utf-8")
    listed = make(photos, meta_info_file=str(tmp_path / "list.txt"))
    assert [path.rsplit("/", 1)[-1] for path in listed.store.paths] == ["1.png", "3.png", "one more.png"]
    (photos / "one more.png").unlink()
    assert len(make(tmp_path / "nested", recursive=True)) == 5
    with pytest.raises(DataError, match=r"sub-folders \(inner\): set 'recursive: true'"):
        make(tmp_path / "nested")
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    names = [path.name for path in sorted(photos.iterdir())]
    make_lmdb_from_imgs(str(photos), str(tmp_path / "photos.lmdb"), names, [name[:-4] for name in names])
    folder = make(photos, phase="val", degradations=["Clean"])
    lmdb_set = make(tmp_path / "photos.lmdb", phase="val", degradations=["Clean"], io_backend={"type": "lmdb"})
    for first, second in zip(folder, lmdb_set):
        torch.testing.assert_close(first["gt"], second["gt"], rtol=0, atol=0)
    DegradationDataset.plan(
        {"name": "x", "dataroot_gt": str(tmp_path / "photos.lmdb"), "io_backend": {"type": "lmdb"}, "gt_size": 24,
         "degradations": ["Rain"]}, "datasets.train").check()  # fmt: skip
    with pytest.raises(DataError, match="is not an lmdb folder"):
        make(photos, io_backend={"type": "lmdb"})


# --- bad input, before training


def check(photos, **options):
    opt = {
        "name": "p",
        "type": "DegradationDataset",
        "dataroot_gt": str(photos),
        "gt_size": 24,
        "degradations": ["Rain"],
    }
    DegradationDataset.plan({**opt, **options}, "datasets.train").check()


def test_a_good_folder_passes_the_check(photos):
    check(photos)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"gt_siez": 3}, OptionError, r"datasets\.train\.gt_siez: unknown option 'gt_siez'. Did you mean 'gt_size'"),
        ({"gt_size": 0}, OptionError, r"datasets\.train\.gt_size: must be above 0"),
        ({"degradations": []}, OptionError, r"datasets\.train\.degradations: this option is required"),
        ({"dataroot_gt": None}, OptionError, r"datasets\.train\.dataroot_gt: this option is required"),
        ({"degradations": ["rian"]}, OptionError, r"datasets\.train\.degradations\[0\]\.type: unknown degradation"),
        ({"degradations": [{"type": "Rain", "label": -1}]}, OptionError, r"degradations\[0\]\.label"),
        ({"degradations": [{"type": "Rain", "weight": 0}]}, OptionError, r"degradations\[0\]\.weight"),
        ({"cutmix": {}}, OptionError, r"datasets\.train\.cutmix: needs at least two degradations"),
        ({"cutmix": {"alhpa": 1}, "degradations": ["Rain", "Haze"]}, OptionError, r"cutmix\.alhpa: unknown option"),
        ({"mean": [0.5]}, OptionError, r"datasets\.train\.mean: expected three numbers"),
        (
            {"io_backend": {"type": "dsik"}},
            OptionError,
            r"io_backend\.type: unknown backend 'dsik'. Did you mean 'disk'",
        ),
        ({"scale": 2}, OptionError, r"datasets\.train\.scale: must be 1"),
        ({"meta_info_file": "none.txt"}, DataError, r"meta_info_file: there is no file none\.txt"),
    ],
)
def test_wrong_options_are_found_by_the_check(photos, options, error, text):
    with pytest.raises(error, match=text):
        check(photos, **options)


def test_wrong_folders_are_found_by_the_check(photos, tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*photso.* Did you mean .*photos\?"):
        check(photos.parent / "photso")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"dataroot_gt: no image in .*empty\. The folder is empty"):
        check(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"It has notes\.txt; images end in \.png"):
        check(tmp_path / "empty")
    with pytest.raises(DataError, match="is a file, a folder was expected"):
        check(photos / "1.png")


def test_broken_and_small_images_are_found_by_the_check(photos, image_writer):
    whole = (photos / "2.png").read_bytes()
    (photos / "2.png").write_bytes(whole[: len(whole) // 2])
    (photos / "3.png").write_bytes(b"")
    (photos / "4.png").write_bytes(b"no image at all")
    (photos / "5.png").write_bytes(b"nor this")
    with pytest.raises(DataError, match=r"4 unreadable image\(s\): .*2\.png is cut off.*3\.png is empty.* and 1 more"):
        check(photos)
    with pytest.raises(DataError, match=r"2\.png: cannot be decoded"):
        make(photos, phase="val", gt_size=None, degradations=["Clean"])[2]
    for name in "2345":
        (photos / f"{name}.png").unlink()
    image_writer(photos / "small.png", 20, 60)
    with pytest.raises(DataError, match=r"1 image\(s\) smaller than gt_size 24: .*small\.png is 20 x 60"):
        check(photos)
    check(photos, pad_small=True)
    with pytest.raises(DataError, match=r"small\.png: the image is 20 x 60 .* smaller than gt_size 24"):
        make(photos, degradations=["Clean"])[2]
    padded = make(photos, pad_small=True, degradations=["Clean"])
    assert padded[2]["gt"].shape == (3, 24, 24)


def test_a_truncated_jpeg_is_found(photos):
    image = cv2.imread(str(photos / "0.png"))
    cv2.imwrite(str(photos / "9.jpg"), image)
    whole = (photos / "9.jpg").read_bytes()
    check(photos)
    (photos / "9.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match=r"9\.jpg is cut off"):
        check(photos)
