"""RainSynthesisDataset: nested subsets of tiles, rain ranges, masks."""

import cv2
import numpy as np
import pytest
import torch

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.data.rain_synthesis_dataset import RainSynthesisDataset, nested_subset


@pytest.fixture
def backgrounds(tmp_path, image_writer):
    for number in range(6):
        image_writer(tmp_path / f"{number}.png", 70, 100, number)
    return tmp_path


def opt(root, **options):
    return {"name": "r", "type": "RainSynthesisDataset", "phase": "train", "dataroot_gt": str(root), "tile_size": 32,
            "seed": 1, "rain": {"preset": "medium"}, **options}  # fmt: skip


def make(root, **options):
    dataset = RainSynthesisDataset(opt(root, **options))
    dataset.set_epoch(0)
    return dataset


def test_smaller_subsets_lie_in_larger_ones():
    subsets = [nested_subset(500, count, seed=3) for count in (8, 16, 64, 256)]
    for small, large in zip(subsets, subsets[1:]):
        assert set(small) < set(large)
    assert nested_subset(500, 8, seed=4) != subsets[0]
    assert sorted(nested_subset(500, None, 3)) == list(range(500))


def test_backgrounds_are_counted_in_tiles(backgrounds):
    assert len(make(backgrounds)) == 6 * 2 * 3
    centres = make(backgrounds, tile="centre")
    assert len(centres) == 6
    assert all(path.endswith("[19:34]") for path in centres.store.paths)  # 32 of 70 x 100 pixels
    small, large = make(backgrounds, num_backgrounds=4), make(backgrounds, num_backgrounds=9)
    assert len(small) == 4
    assert set(small.store.paths) < set(large.store.paths)
    other = make(backgrounds, num_backgrounds=4, subset_seed=1)
    assert set(other.store.paths) != set(small.store.paths)


def test_tiles_are_never_cut_again_and_rain_is_added(backgrounds):
    dataset = make(backgrounds, num_backgrounds=3, use_hflip=False, use_rot=False)
    tiles = set()
    for index in range(30):
        sample = dataset[index]
        tiles.add(sample["gt"].numpy().tobytes())
        assert sample["gt"].shape == (3, 32, 32)
        assert sample["rain_mask"].shape == (1, 32, 32)
        changed = (sample["lq"] - sample["gt"]).amax(0) > 10 / 255 + 1e-5
        assert (changed <= sample["rain_mask"][0].bool()).all()
    assert len(tiles) == 3


def test_cache_and_whole_images(backgrounds):
    plain, cached = make(backgrounds, num_backgrounds=5), make(backgrounds, num_backgrounds=5, cache="ram")
    for index in range(5):
        assert torch.equal(plain[index]["lq"], cached[index]["lq"])
    whole = make(backgrounds, tile="none", num_backgrounds=2, gt_size=40, tile_size=128)
    assert len(whole) == 2
    assert whole[0]["lq"].shape == (3, 40, 40)


def test_several_rain_ranges(backgrounds):
    mixed = make(backgrounds, rain=[{"preset": "small"}, {"preset": "large"}], return_params=True)
    lengths = {int(mixed[index]["params"].split('"length": ')[1].split(",")[0]) for index in range(60)}
    assert min(lengths) < 36
    assert max(lengths) > 44
    assert mixed.num_degradations == 1
    labelled = make(backgrounds, label=3)
    assert labelled[0]["degradation"] == 3
    assert RainSynthesisDataset.plan(opt(backgrounds, label=3), "datasets.train").labels == 4


def test_errors_are_found_before_training(backgrounds):
    RainSynthesisDataset.plan(opt(backgrounds, num_backgrounds=4), "datasets.train").check()
    with pytest.raises(DataError, match=r"datasets\.train\.num_backgrounds: 99 wanted, the images give 36 tiles"):
        RainSynthesisDataset.plan(opt(backgrounds, num_backgrounds=99), "datasets.train").check()
    with pytest.raises(OptionError, match=r"preset"):
        RainSynthesisDataset.plan(opt(backgrounds, rain={"preset": "huge"}), "datasets.train").check()
    with pytest.raises(OptionError, match=r"datasets\.train\.tile_sise: unknown option"):
        RainSynthesisDataset.plan(opt(backgrounds, tile_sise=3), "datasets.train").check()
    with pytest.raises(DataError, match="smaller than gt_size 80"):
        RainSynthesisDataset.plan(opt(backgrounds, tile_size=80), "datasets.train").check()


def test_images_that_give_no_tile_are_counted(backgrounds, caplog):
    import logging

    logging.getLogger("basicsr").propagate = True
    make(backgrounds, tile_size=40)
    assert "smaller than a tile" not in caplog.text
    cv2.imwrite(str(backgrounds / "small.png"), np.zeros((20, 90, 3), np.uint8))
    make(backgrounds, tile_size=40, pad_small=True)
    assert "1 of" in caplog.text
    assert "images are smaller than a tile and give none." in caplog.text
