"""The RAM cache: same pixels, decoded once, shared by processes, inside its limit."""

import multiprocessing
import os
import pickle

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from basicsr_plugins.data import image_store
from basicsr_plugins.data.degradation_dataset import DegradationDataset
from basicsr_plugins.data.image_store import open_store
from basicsr_plugins.data.ram_cache import RamCache


def test_pixels_are_those_of_the_files_and_decoded_once(photos, monkeypatch):
    store = open_store(str(photos), "x")
    cache = RamCache(store, 1.0)
    expected = [store.read(position) for position in range(5)]
    reads = []
    original = image_store.read_image
    monkeypatch.setattr(image_store, "read_image", lambda path: reads.append(path) or original(path))
    for _ in range(3):
        for position in range(5):
            np.testing.assert_array_equal(cache.read(position), expected[position])
    assert len(reads) == 5
    assert cache.size(3) == expected[3].shape[:2]


def test_the_limit_holds_and_the_rest_is_decoded_each_time(photos, monkeypatch):
    store = open_store(str(photos), "x")
    one = 40 * 48 * 3
    cache = RamCache(store, (2.5 * one + 200) / 2**30)
    assert len(cache._places) == 2
    reads = []
    original = image_store.read_image
    monkeypatch.setattr(image_store, "read_image", lambda path: reads.append(path) or original(path))
    for _ in range(2):
        for position in range(5):
            cache.read(position)
    assert len(reads) == 2 + 2 * 3


def test_sixteen_bits_are_kept_as_sixteen_bits(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 65536, (20, 24, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), image)
    cache = RamCache(open_store(str(tmp_path), "x"), 1.0)
    np.testing.assert_array_equal(cache.read(0), image)
    monkeypatch.setattr(image_store, "read_image", lambda path: 1 / 0)  # never again from the file
    np.testing.assert_array_equal(cache.read(0), image)


def _fill(cache, position, queue):
    queue.put(int(cache.read(position).astype(np.int64).sum()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_one_process_decodes_every_process_has(photos, method):
    cache = RamCache(open_store(str(photos), "x"), 1.0)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_fill, args=(cache, 2, queue))
    process.start()
    total = queue.get(timeout=60)
    process.join()
    assert cache._memory.array[2] == 1  # filled by the child
    assert cache._memory.array[1] == 0
    assert int(cache.read(2).astype(np.int64).sum()) == total


def test_a_data_set_with_cache_returns_the_same_samples(photos):
    def samples(cache, workers):
        dataset = DegradationDataset({
            "name": "p", "phase": "train", "dataroot_gt": str(photos), "gt_size": 16, "seed": 1, "cache": cache,
            "degradations": ["GaussianNoise"],
        })  # fmt: skip
        dataset.set_epoch(0)
        return [batch["lq"] for batch in DataLoader(dataset, batch_size=5, num_workers=workers)]

    reference = samples("none", 0)[0]
    assert (samples("ram", 0)[0] == reference).all()
    assert (samples("ram", 2)[0] == reference).all()


def test_a_cache_can_be_pickled_where_its_owner_is_gone(photos):
    cache = RamCache(open_store(str(photos), "x"), 1.0)
    state = pickle.dumps(cache)
    expected = cache.read(0).copy()
    other = pickle.loads(state)
    assert other._memory.array[0] == 1  # the same memory
    np.testing.assert_array_equal(other.read(0), expected)
    number = cache._memory._file
    del other
    assert cache._memory.array[0] == 1
    os.fstat(number)  # still open: it is the owner's
    del cache
    stranger = os.open(photos / "0.png", os.O_RDWR)  # gets the number that is free again
    content = (photos / "0.png").read_bytes()
    alone = pickle.loads(state)  # its memory is closed: it keeps one of its own, and leaves the stranger alone
    assert alone._memory.array[0] == 0
    np.testing.assert_array_equal(alone.read(0), expected)
    assert (photos / "0.png").read_bytes() == content
    assert stranger == number
    os.close(stranger)
