"""Padding by itself, and recorded at one size and used at another."""

from __future__ import annotations

import pytest
import torch

from basicsr_plugins.core.padding import crop_to, larger, pad_to_multiple, smaller


@pytest.mark.parametrize(("mode", "at_least"), [("reflect", 0), ("zeros", 0), ("reflect", 24)])
def test_a_recording_pads_any_size_as_the_function_does(mode, at_least):
    def pad_and_crop(x):
        padded = pad_to_multiple(x, 8, mode, at_least)
        return padded, crop_to(padded * 2, *x.shape[-2:])

    recorded = torch.jit.trace(pad_and_crop, torch.rand(1, 3, 16, 32), check_trace=False)
    for size in ((16, 32), (45, 70), (9, 3), (1, 1), (2, 90)):
        x = torch.rand(2, 3, *size)
        for got, wanted in zip(recorded(x), pad_and_crop(x)):
            assert torch.equal(got, wanted)


def test_an_image_that_fits_is_no_copy():
    x = torch.rand(1, 3, 16, 32)
    assert pad_to_multiple(x, 8) is x
    assert crop_to(x, 16, 32) is x


def test_sides_stay_integers():
    assert (smaller(3, 4), larger(3, 4)) == (3, 4)
    assert isinstance(smaller(3, 4), int)
