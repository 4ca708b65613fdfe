"""The seed contract: same seed same image, on any number of workers; epochs differ; validation never changes."""

import gc

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import basicsr_plugins
from basicsr_plugins.data.seeding import SampleSeeds
from basicsr_plugins.stock import sampler


@pytest.fixture(scope="module", autouse=True)
def _registered():
    basicsr_plugins.register()


def options(photos, **more):
    return {
        "name": "photos", "type": "DegradationDataset", "phase": "train", "dataroot_gt": str(photos), "gt_size": 16,
        "degradations": ["GaussianNoise", "Rain", "Haze"], "batch_size_per_gpu": 2, "num_worker_per_gpu": 0,
        "seed": 7, "return_params": True, **more,
    }  # fmt: skip


def epochs(opt, workers=0, count=2, ratio=3, first=0):
    """Return the batches of some epochs, as BasicSR's training script draws them."""
    from basicsr.data import build_dataloader, build_dataset
    from basicsr.data.data_sampler import EnlargedSampler

    opt = {**opt, "num_worker_per_gpu": workers}
    dataset = build_dataset(opt)
    sampler = EnlargedSampler(dataset, 1, 0, ratio)
    loader = build_dataloader(dataset, opt, num_gpu=0, sampler=sampler, seed=10)
    result = []
    for epoch in range(first, first + count):
        sampler.set_epoch(epoch)
        none = torch.zeros(1)
        result.append([(b["lq"], b["gt"], b.get("degradation", none), list(b["gt_path"])) for b in loader])
    return result


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and torch.equal(a[2], b[2]) and a[3] == b[3]
        for a, b in zip(first, second)
    )


def test_same_images_on_any_number_of_workers_and_after_a_restart(photos):
    reference = epochs(options(photos))
    for workers in (1, 2, 3):
        for ours, theirs in zip(reference, epochs(options(photos), workers)):
            assert same(ours, theirs)
    assert same(reference[1], epochs(options(photos), 2, count=1, first=1)[0])  # resumed at the second epoch


def test_a_training_that_is_over_has_no_sampler(photos):
    epochs(options(photos))
    gc.collect()
    assert sampler.current_sampler() is None


@pytest.mark.parametrize("length", [1, 3])
def test_without_set_epoch_and_workers_the_samples_served_count_the_epochs(length):
    seeds = SampleSeeds(7)
    seen = []
    for served in range(7):
        seeds.serve(served % length)
        seen.append(seeds.epoch)
    assert seen == [served // length for served in range(7)]


def test_a_data_set_is_its_samples_in_order(photos):
    from basicsr.data import build_dataset

    dataset = build_dataset(options(photos))
    assert [sample["gt_path"] for sample in dataset] == [dataset[index]["gt_path"] for index in range(len(dataset))]
    assert dataset[len(dataset)]["gt_path"] == dataset[0]["gt_path"], "training takes virtual indices"
    with pytest.raises(IndexError, match="sample -1 of"):
        dataset[-1]
    validation = build_dataset(options(photos, phase="val"))
    with pytest.raises(IndexError, match=f"sample {len(validation)} of"):
        validation[len(validation)]


def test_persistent_workers_see_the_epoch(photos):
    reference = epochs(options(photos), 0, count=3)
    for ours, theirs in zip(reference, epochs(options(photos, persistent_workers=True), 2, count=3)):
        assert same(ours, theirs)


def test_epochs_and_repetitions_within_an_epoch_differ(photos):
    first, second = epochs(options(photos, gt_size=40, use_hflip=False, use_rot=False, degradations=["GaussianNoise"]))
    drawn = [lq.double().sum().item() for batches in (first, second) for batch in batches for lq in batch[0]]
    assert len(set(drawn)) == len(drawn)


def test_the_seed_of_the_option_file_decides(photos):
    def run(manual_seed):
        torch.manual_seed(manual_seed)
        return epochs(options(photos, seed=None), 0, count=1)[0]

    assert same(run(3), run(3))
    assert not same(run(3), run(4))


def test_stock_worker_seeding_repeats_its_draws_and_ours_does_not(photos, tmp_path):
    """The same check, passed by our data sets and failed by BasicSR's: no epoch may repeat another's crops."""
    import cv2

    ramp = np.stack([*np.meshgrid(np.arange(40), np.arange(40)), np.zeros((40, 40))], axis=2).astype(np.uint8)
    for number in range(4):  # equal pictures whose pixels tell where they are
        (tmp_path / "ramp").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "ramp" / f"{number}.png"), ramp)
    stock = {
        "name": "stock", "type": "PairedImageDataset", "phase": "train", "scale": 1, "gt_size": 16, "use_rot": False,
        "dataroot_gt": str(tmp_path / "ramp"), "dataroot_lq": str(tmp_path / "ramp"), "use_hflip": False,
        "io_backend": {"type": "disk"}, "batch_size_per_gpu": 2,
    }  # fmt: skip

    def check_epochs_differ(opt):
        first, second = (torch.cat([batch[1] for batch in batches])[:, :, 0, 0] for batches in epochs(opt, workers=2))
        assert not torch.equal(first, second)

    with pytest.raises(AssertionError):
        check_epochs_differ(stock)
    check_epochs_differ({"name": "ours", "type": "AllInOneDataset", "phase": "train", "batch_size_per_gpu": 2,
                         "gt_size": 16, "use_rot": False, "use_hflip": False, "children": [
                             {"type": "PairedImageDataset", "dataroot_gt": stock["dataroot_gt"],
                              "dataroot_lq": stock["dataroot_lq"]}]})  # fmt: skip
    check_epochs_differ({**options(tmp_path / "ramp", use_hflip=False, use_rot=False)})


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_differ_even_when_nobody_tells_the_epoch(photos, workers):
    from basicsr.data import build_dataset

    dataset = build_dataset(options(photos))
    loader = DataLoader(dataset, batch_size=5, num_workers=workers)
    first, second = ([batch["lq"] for batch in loader] for _ in range(2))
    assert not torch.equal(first[0], second[0])


def plain_epochs(dataset, workers, count=3, **loader):
    """Return the samples of some epochs of a plain loader, by index, in an order of its own."""
    torch.manual_seed(11)
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, shuffle=True, generator=generator, **loader)
    return [{path: lq for batch in loader for path, lq in zip(batch["gt_path"], batch["lq"])} for _ in range(count)]


def mix(photos, **more):
    child = {key: value for key, value in options(photos).items() if key in ("type", "dataroot_gt", "degradations")}
    inner = {"type": "AllInOneDataset", "children": [child]}
    return {
        "name": "m",
        "type": "AllInOneDataset",
        "phase": "train",
        "gt_size": 16,
        "seed": 7,
        "children": [inner],
        **more,
    }


@pytest.mark.parametrize("make", [options, mix])
def test_in_a_plain_loader_the_seed_fixes_the_draws_and_epochs_differ(photos, make):
    """Whatever the workers, persistent or started anew, forked or spawned, and whatever torch's own seed."""
    from basicsr.data import build_dataset

    reference = plain_epochs(build_dataset(make(photos)), 0)
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert not any(torch.equal(reference[first][path], reference[second][path]) for path in reference[0])
    for workers, loader in ((1, {}), (2, {}), (2, {"persistent_workers": True}),
                            (1, {"persistent_workers": True, "multiprocessing_context": "spawn"})):  # fmt: skip
        found = plain_epochs(build_dataset(make(photos)), workers, **loader)
        for ours, theirs in zip(found, reference):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[path], theirs[path]) for path in theirs), (workers, loader)
    other = plain_epochs(build_dataset(make(photos, seed=8)), 0, count=1)[0]
    assert not any(torch.equal(other[path], reference[0][path]) for path in other)


def test_part_of_a_data_set_draws_as_the_whole(photos):
    from basicsr.data import build_dataset

    whole, part = build_dataset(options(photos)), build_dataset(options(photos))
    for _ in range(2):
        for index in range(5):
            sample = whole[index]
            if index in (1, 3):
                assert torch.equal(part[index]["lq"], sample["lq"])


def test_validation_never_changes(photos):
    from basicsr.data import build_dataset

    opt = options(photos, phase="val", seed=None, gt_size=None)
    torch.manual_seed(1)
    dataset = build_dataset(opt)
    first = [dataset[index]["lq"] for index in range(len(dataset))]
    dataset.set_epoch(5)
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002
    other = build_dataset(opt)
    for workers in (0, 2):
        again = [batch["lq"][0] for batch in DataLoader(other, batch_size=1, num_workers=workers)]
        assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert all(torch.equal(a, dataset[index]["lq"]) for index, a in enumerate(first))


def test_children_of_a_mix_draw_unlike_each_other(photos):
    from basicsr.data import build_dataset

    child = {
        key: value
        for key, value in options(photos).items()
        if key in ("type", "dataroot_gt", "degradations", "gt_size")
    }
    child["degradations"] = [{"type": "GaussianNoise", "sigma": 25, "label": 0, "clip": False}]
    mix = build_dataset({"name": "m", "type": "AllInOneDataset", "phase": "train", "children": [child] * 3, "seed": 1})
    mix.set_epoch(0)
    first, second, third = (mix[len(mix) // 3 * number] for number in range(3))
    for one, other in ((first, second), (second, third)):
        assert one["gt_path"] == other["gt_path"]
        assert not torch.equal(one["gt"], other["gt"])  # the same picture, cut elsewhere
        assert not torch.allclose(one["lq"] - one["gt"], other["lq"] - other["gt"], atol=1e-3)


def test_seeds_object_by_itself():
    seeds = SampleSeeds(3)
    seeds.set_epoch(2)
    draw = seeds.generator(5).random()
    assert draw == seeds.generator(5).random()
    assert draw != seeds.generator(6).random()
    seeds.set_epoch(3)
    assert draw != seeds.generator(5).random()
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 2, 5]))).random()
    assert draw == expected
