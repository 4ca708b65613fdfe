"""Near hashes are all found, at every distance, and by the arithmetic of old NumPy versions too."""

import numpy as np
import pytest

from basicsr_plugins.data.hamming import hamming, near_pairs


@pytest.fixture(scope="module")
def hashes():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 60, dtype=np.uint64)
    near = [
        int(value) ^ sum(1 << int(bit) for bit in rng.choice(64, flips, replace=False))
        for value, flips in zip(base, rng.integers(0, 14, 60))
    ]
    return np.unique(np.concatenate([base, np.array(near, np.uint64)]))


@pytest.mark.parametrize("distance", [0, 1, 2, 4, 7, 8, 13, 32, 64])
def test_all_pairs_are_found_and_no_others(hashes, distance):
    whole = [int(value) for value in hashes]
    wanted = {
        (i, j) for i in range(len(whole)) for j in range(i) if bin(whole[i] ^ whole[j]).count("1") <= distance
    }  # fmt: skip
    first, second = near_pairs(hashes, distance)
    assert len(first) == len(wanted)
    assert set(zip(second.tolist(), first.tolist())) == wanted


def test_nothing_and_one_hash_have_no_pairs():
    for count in (0, 1):
        assert [len(side) for side in near_pairs(np.arange(count, dtype=np.uint64), 4)] == [0, 0]


def test_bits_are_counted_without_numpy_2(hashes, monkeypatch):
    wanted = [bin(int(value)).count("1") for value in hashes]
    assert hamming(hashes, np.uint64(0)).tolist() == wanted
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert hamming(hashes, np.uint64(0)).tolist() == wanted
