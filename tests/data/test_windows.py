"""Windows lie where BasicSR's script puts them, and at the same places in both images of a pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.data.windows import Cutting, starts, windows


@given(st.integers(1, 50), st.integers(0, 250), st.integers(1, 60), st.integers(0, 30))
def test_starts_follow_the_published_rule(size, more, step, threshold):
    length = size + more
    found = starts(length, size, step, threshold)
    grid = np.arange(0, length - size + 1, step).tolist()
    rest = length - grid[-1] - size
    assert found == (grid + [length - size] if rest > threshold else grid)


def test_every_pixel_is_covered_without_a_threshold():
    seen = np.zeros((101, 77), bool)
    for top, left, height, width in windows(101, 77, Cutting(size=32, step=24)):
        assert (height, width) == (32, 32)
        seen[top : top + height, left : left + width] = True
    assert seen.all()


def test_a_small_side_is_kept_whole():
    assert windows(10, 40, Cutting(size=20, step=20)) == [(0, 0, 10, 20), (0, 20, 10, 20)]


def test_windows_of_a_pair_are_those_of_the_clean_image():
    clean = windows(400, 600, Cutting(size=96, step=48))
    degraded = windows(100, 150, Cutting(size=96, step=48, scale=4))
    assert [tuple(4 * number for number in box) for box in degraded] == clean


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"size": 0}, "--size: must be 1 or more, got 0"),
        ({"step": -1}, "--step"),
        ({"threshold": -1}, "--threshold"),
        ({"scale": 0}, "--scale"),
        ({"size": 100, "scale": 3}, "--size: must be a multiple of --scale"),
        ({"size": 99, "step": 10, "scale": 3}, "--step: must be a multiple of --scale"),
        ({"compression": 10}, "--compression: must lie between 0 and 9"),
    ],
)
def test_wrong_numbers_are_refused(wrong, text):
    with pytest.raises(OptionError, match=text):
        Cutting(**wrong)
