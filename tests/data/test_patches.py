"""Patches: which switch turns what, and that the draws of a sample do not move when one is switched off."""

from __future__ import annotations

import numpy as np
import pytest

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.data.loader_options import PatchOptions
from basicsr_plugins.data.patches import Patch, as_tensor, choose_patch, cut, cut_float


def options(**changed) -> PatchOptions:
    """Options of a training crop of 8."""
    return PatchOptions(**{"name": "x", "type": "x", "gt_size": 8, "phase": "train", **changed})


def drawn(opt: PatchOptions, count: int = 64) -> list[Patch]:
    """Return the patches of ``count`` samples of a 32 x 40 image."""
    return [choose_patch((32, 40), opt, np.random.default_rng(index), "image") for index in range(count)]


@pytest.mark.parametrize(("use_hflip", "use_rot"), [(True, True), (True, False), (False, True), (False, False)])
def test_use_hflip_mirrors_columns_and_use_rot_rows_and_axes(use_hflip, use_rot):
    patches = drawn(options(use_hflip=use_hflip, use_rot=use_rot))
    both = {False, True}
    assert {patch.hflip for patch in patches} == (both if use_hflip else {False})
    assert {patch.vflip for patch in patches} == (both if use_rot else {False})
    assert {patch.swap for patch in patches} == (both if use_rot else {False})


def test_a_switch_leaves_the_other_draws_in_place():
    """The windows and the remaining turns are those of the run with everything on."""
    every = drawn(options(use_hflip=True, use_rot=True))
    assert [(p.top, p.left, p.hflip) for p in drawn(options(use_hflip=True, use_rot=False))] == [
        (p.top, p.left, p.hflip) for p in every
    ]
    assert [(p.top, p.left, p.vflip, p.swap) for p in drawn(options(use_hflip=False, use_rot=True))] == [
        (p.top, p.left, p.vflip, p.swap) for p in every
    ]


def test_each_choice_follows_its_own_draw():
    for index, patch in enumerate(drawn(options())):
        top, left, *turns = np.random.default_rng(index).random(5)
        assert (patch.top, patch.left) == (int(top * 25), int(left * 33))
        assert [patch.hflip, patch.vflip, patch.swap] == [turn < 0.5 for turn in turns]


def test_the_turns_are_independent():
    """All combinations occur, those with a half of the places too, so that no two of them follow one draw."""
    patches = drawn(options(use_hflip=True, use_rot=True), 512)
    assert len({(p.hflip, p.vflip, p.swap, p.top < 12, p.left < 16) for p in patches}) == 32


def test_every_window_lies_inside_and_reaches_every_edge():
    patches = drawn(options(), 2000)
    assert {p.top for p in patches} == set(range(32 - 8 + 1))
    assert {p.left for p in patches} == set(range(40 - 8 + 1))


def test_validation_takes_the_centre_and_turns_nothing():
    assert choose_patch((32, 40), options(phase="val"), np.random.default_rng(0), "x") == Patch(12, 16, 8, 8)


def test_the_whole_image_is_cut_to_a_multiple():
    opt = options(gt_size=None, phase="val", multiple_of=8)
    assert choose_patch((31, 40), opt, np.random.default_rng(0), "x") == Patch(0, 0, 24, 40)
    with pytest.raises(DataError, match="smaller than multiple_of 8"):
        choose_patch((7, 40), opt, np.random.default_rng(0), "x")


def test_small_images_are_padded_only_where_asked():
    with pytest.raises(DataError, match="smaller than gt_size 8"):
        choose_patch((8, 6), options(), np.random.default_rng(0), "x")
    patch = choose_patch((8, 6), options(pad_small=True), np.random.default_rng(0), "x")
    assert patch == Patch(0, 0, 8, 8, (0, 2), patch.hflip, patch.vflip, patch.swap)
    assert choose_patch((6, 20), options(pad_small=True), np.random.default_rng(0), "x").pad == (2, 0)
    image = np.arange(48, dtype=np.uint8).reshape(8, 6)
    window = cut_float(image, Patch(0, 0, 8, 8, patch.pad))
    np.testing.assert_array_equal(window, np.pad(image, ((0, 0), (0, 2)), mode="reflect"))


def test_turns_by_hand():
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert cut_float(image, Patch(0, 0, 2, 3, hflip=True)).tolist() == [[2, 1, 0], [5, 4, 3]]
    assert cut_float(image, Patch(0, 0, 2, 3, vflip=True)).tolist() == [[3, 4, 5], [0, 1, 2]]
    assert cut_float(image, Patch(0, 0, 2, 3, swap=True)).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_cut_returns_rgb():
    bgr = np.zeros((4, 4, 3), dtype=np.uint8)
    bgr[..., 0] = 255
    assert cut(bgr, Patch(1, 1, 2, 2))[0, 0].tolist() == [0, 0, 1]


def test_tensors_are_normalised_channel_by_channel():
    image = np.random.default_rng(0).random((4, 5, 3), dtype=np.float32)
    mean, std = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    np.testing.assert_array_equal(as_tensor(image).numpy(), image.transpose(2, 0, 1))
    expected = (image - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(as_tensor(image, mean, std).numpy(), expected.transpose(2, 0, 1), rtol=1e-6)
