"""AllInOneDataset: labels, ratios, balance, children of any type, inherited options, errors."""

from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

import basicsr_plugins
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.data.all_in_one_dataset import AllInOneDataset


@pytest.fixture(scope="module", autouse=True)
def _registered():
    basicsr_plugins.register()


@pytest.fixture
def roots(tmp_path, image_writer):
    """Return two folders of pairs, of 2 and 6 images, and one of 3 clean images."""
    for folder, count in (("a", 2), ("b", 6)):
        for number in range(count):
            image_writer(tmp_path / folder / "lq" / f"{number}.png", seed=number)
            image_writer(tmp_path / folder / "gt" / f"{number}.png", seed=number + 50)
    for number in range(3):
        image_writer(tmp_path / "clean" / f"{number}.png", seed=number)
    return tmp_path


def pair(roots, folder, kind="PairedImageDataset", **more):
    return {"type": kind, "dataroot_lq": str(roots / folder / "lq"), "dataroot_gt": str(roots / folder / "gt"), **more}


def make(children, **options):
    opt = {"name": "mix", "type": "AllInOneDataset", "phase": "train", "gt_size": 24, "seed": 1}
    dataset = AllInOneDataset({**opt, "children": children, **options})
    dataset.set_epoch(0)
    return dataset


def test_labels_follow_the_children_stock_and_ours(roots):
    synthetic = {"type": "DegradationDataset", "dataroot_gt": str(roots / "clean"), "degradations": ["Haze", "Rain"]}
    dataset = make([pair(roots, "a"), synthetic, pair(roots, "b", "PairedRuleDataset")])
    labels = [sample["degradation"] for sample in dataset]
    assert labels[:2] == [0, 0]
    assert set(labels[2:5]) <= {1, 2}
    assert labels[5:] == [3] * 6
    assert dataset.num_degradations == 4
    assert AllInOneDataset.plan(dataset.opt, "datasets.train").labels == 4
    batch = next(iter(DataLoader(dataset, batch_size=len(dataset))))
    assert batch["lq"].shape == (11, 3, 24, 24)


def test_explicit_labels_may_repeat_and_shift_the_following(roots):
    dataset = make([pair(roots, "a", label=2), pair(roots, "b", label=0), pair(roots, "a")])
    assert [sample["degradation"] for sample in dataset] == [2] * 2 + [0] * 6 + [3] * 2
    assert dataset.num_degradations == 4


def test_ratios_repeat_and_balance_evens_out(roots):
    assert make([pair(roots, "a", ratio=3), pair(roots, "b")]).lengths == [6, 6]
    balanced = make([pair(roots, "a", ratio=7), pair(roots, "b")], balance=True)
    assert Counter(sample["degradation"] for sample in balanced) == {0: 6, 1: 6}


def test_a_ratio_below_one_takes_another_part_in_every_epoch(roots):
    dataset = make([pair(roots, "b", ratio=0.5), pair(roots, "a")])
    assert dataset.lengths == [3, 2]
    parts = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        parts.append({sample["gt_path"] for sample in list(dataset)[:3]})
    assert len(parts[0]) == 3
    assert parts[0].isdisjoint(parts[1])


def test_repetitions_of_one_image_are_cut_differently(roots):
    dataset = make([pair(roots, "a", "PairedRuleDataset", ratio=10), pair(roots, "a", ratio=10)])
    for start in (0, 20):
        crops = {dataset[start + 2 * k]["gt"].numpy().tobytes() for k in range(10)}
        assert len(crops) > 5
    beyond = len(dataset)  # the sampler's second pass
    assert not torch.equal(dataset[0]["gt"], dataset[beyond]["gt"])


def test_stock_children_leave_the_global_generators_alone(roots):
    dataset = make([pair(roots, "a")])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = dataset[0]["gt"]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(dataset[0]["gt"], first)


def test_children_may_be_named_and_nested(roots):
    inner = {"type": "AllInOneDataset", "children": [pair(roots, "a"), pair(roots, "b")]}
    dataset = make({"rain": pair(roots, "a"), "both": inner})
    assert [sample["degradation"] for sample in dataset] == [0] * 2 + [1] * 2 + [2] * 6
    dataset.set_epoch(4)
    assert dataset.datasets[1].seeds.epoch == 4
    with pytest.raises(
        OptionError, match=r"datasets\.train\.children\.rain\.type: unknown dataset 'PairdImageDataset'"
    ):
        AllInOneDataset.plan({"children": {"rain": {"type": "PairdImageDataset"}}}, "datasets.train").labels


def test_maps_are_shifted_to_the_childs_labels(roots):
    synthetic = {"type": "DegradationDataset", "dataroot_gt": str(roots / "clean"), "degradations": ["Haze", "Rain"],
                 "cutmix": {"probability": 1.0}}  # fmt: skip
    dataset = make([pair(roots, "a"), synthetic])
    assert (dataset[0]["degradation_map"] == 0).all()
    assert set(torch.cat([dataset[k]["degradation_map"].flatten() for k in (2, 3, 4)]).unique().tolist()) == {1, 2}


def test_validation_counts_every_sample_once(roots):
    dataset = make([pair(roots, "a"), pair(roots, "b", "PairedRuleDataset")], phase="val", gt_size=None)
    assert len(list(dataset)) == 8
    with pytest.raises(IndexError):
        dataset[8]


@pytest.mark.parametrize(
    ("children", "error", "text"),
    [
        ([], OptionError, r"datasets\.train\.children: this option is required"),
        ([{"ratio": 1}], OptionError, r"datasets\.train\.children\[0\]: expected the options of a data set"),
        ([{"type": "Nothing"}], OptionError, r"children\[0\]\.type: unknown dataset 'Nothing'"),
        ([{"type": "DegradationDataset", "degradations": ["Rain"], "dataroot_gt": "/none", "gt_sise": 1}], OptionError,
         r"children\[0\]\.gt_sise: unknown option"),
        ([{"type": "DegradationDataset", "degradations": ["Rain"], "dataroot_gt": "/none"}], DataError,
         r"children\[0\]\.dataroot_gt: there is no folder"),
        ([{"type": "PairedImageDataset", "dataroot_lq": "/none", "dataroot_gt": "/none"}], DataError,
         r"children\[0\]\.dataroot_lq: there is no folder"),
        ([{"type": "PairedRuleDataset", "dataroot_lq": "/none", "ratio": 0}], OptionError, r"children\[0\]\.ratio"),
        ([{"type": "PairedRuleDataset", "dataroot_lq": "/none", "label": -1}], OptionError, r"children\[0\]\.label"),
    ],
)  # fmt: skip
def test_wrong_children_are_named_before_training(children, error, text):
    with pytest.raises(error, match=text):
        AllInOneDataset.plan({"name": "m", "gt_size": 24, "children": children}, "datasets.train").check()


def test_children_with_different_crops_are_refused(roots):
    with pytest.raises(OptionError, match="gt_size differ"):
        make([pair(roots, "a", gt_size=16), pair(roots, "b")])


def test_what_a_stock_child_refuses_is_told_with_its_path(roots, image_writer):
    image_writer(roots / "a" / "gt" / "extra.png")
    with pytest.raises(DataError, match=r"children\[0\]: PairedImageDataset refuses its options: .*different number"):
        make([pair(roots, "a")])


def test_a_mix_inside_a_mix_hears_the_epoch_and_no_two_children_draw_alike(roots):
    noise = {"type": "DegradationDataset", "dataroot_gt": str(roots / "clean"), "degradations": ["GaussianNoise"]}
    inner = {"type": "AllInOneDataset", "children": [dict(noise), dict(noise)]}
    dataset = make([inner, dict(noise)])
    first = [sample["lq"] for sample in dataset]
    dataset.set_epoch(1)
    second = [sample["lq"] for sample in dataset]
    assert not any(torch.equal(one, other) for one, other in zip(first, second))
    for one in range(0, 9, 3):  # the same clean image through three data sets
        for other in range(one + 3, 9, 3):
            assert not torch.equal(first[one], first[other])
    for child in (dataset.datasets[0], *dataset.datasets[0].datasets, dataset.datasets[1]):
        assert child.seeds.epoch == 1
