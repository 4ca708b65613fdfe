"""Blend weights of every mode."""

from __future__ import annotations

import pytest
import torch

from basicsr_plugins.adapters import MODES, blend_weights
from basicsr_plugins.adapters.modes import check_names, keep_clean, kept_share
from basicsr_plugins.core.errors import DataError, OptionError

THREE = ["rain", "haze", "noise"]
P = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.35, 0.45]])


def test_each_mode_by_hand():
    labels = torch.tensor([1, 2])
    assert torch.equal(blend_weights("soft", THREE, P), P)
    assert blend_weights("one_hot", THREE, P).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert blend_weights("oracle", THREE, labels=labels).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert blend_weights("sum", THREE).tolist() == [[1, 1, 1]]
    assert torch.allclose(blend_weights("average", THREE), torch.full((1, 3), 1 / 3))
    assert blend_weights("haze", THREE).tolist() == [[0, 1, 0]]
    assert blend_weights("none", THREE) is None


def test_with_one_task_every_mode_but_the_baseline_is_the_same():
    one = torch.ones(2, 1)
    for mode in [*MODES, "rain"]:
        weights = blend_weights(mode, ["rain"], one, labels=torch.zeros(2, dtype=torch.long))
        assert (weights is None) if mode == "none" else bool((weights == 1).all()), mode


def test_soft_with_a_one_hot_vector_is_one_hot():
    sure = torch.eye(3)
    assert torch.equal(blend_weights("soft", THREE, sure), blend_weights("one_hot", THREE, sure))


def test_classes_are_matched_by_name_and_clean_goes_to_the_baseline():
    classes = ["clean", "noise", "rain", "haze"]
    p = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    assert torch.allclose(blend_weights("soft", THREE, p, classes), torch.tensor([[0.2, 0.1, 0.3]]))
    assert blend_weights("one_hot", THREE, p, classes).tolist() == [[0, 0, 0]]


def test_what_is_clean_for_sure_keeps_its_pixels():
    classes = ["clean", *THREE]
    p = torch.tensor([[1, 0, 0, 0], [0.75, 0.25, 0, 0], [0.5, 0.5, 0, 0], [0.1, 0.9, 0, 0]])
    kept = kept_share("soft", p, classes)
    assert kept.tolist() == [1, 0.5, 0, 0]
    assert kept_share("one_hot", p, classes).tolist() == [1, 1, 1, 0]
    assert kept_share("oracle", classes=classes, labels=torch.tensor([0, 1])).tolist() == [1, 0]
    assert kept_share("soft", p, classes, threshold=0.9).tolist() == [1, 0, 0, 0]
    assert kept_share("soft", p[:, :3], THREE) is None  # nobody knows what is clean
    for mode in ("sum", "average", "none", "rain"):
        assert kept_share(mode, p, classes) is None
    restored, image = torch.zeros(4, 3, 6, 8), torch.ones(4, 3, 6, 8)
    assert keep_clean(restored, image, kept)[:, 0, 0, 0].tolist() == [1, 0.5, 0, 0]
    assert keep_clean(restored, image, None) is restored
    maps = p[..., None, None].expand(4, 4, 3, 4).clone()
    maps[0, :, :, 2:] = p[3, :, None, None]
    mixed = keep_clean(restored, image, kept_share("soft", maps, classes))
    assert (mixed[0, 0, 0, 0], mixed[0, 0, 0, -1], mixed[1, 0, 0, 0]) == (1, 0, 0.5)
    with pytest.raises(OptionError, match="keep_clean: a network that enlarges"):
        keep_clean(torch.zeros(4, 3, 12, 16), image, kept)


def test_top_k_keeps_the_largest_and_their_sum():
    weights = blend_weights("soft", THREE, P, top_k=2)
    assert torch.allclose(weights, torch.tensor([[2 / 3, 1 / 3, 0], [0, 0.4375, 0.5625]]))
    assert torch.equal(blend_weights("soft", THREE, P, top_k=5), P)


def test_below_the_threshold_the_baseline_is_used():
    assert blend_weights("soft", THREE, P, threshold=0.5).tolist()[1] == [0, 0, 0]
    assert torch.equal(blend_weights("soft", THREE, P, threshold=0.5)[0], P[0])
    assert blend_weights("one_hot", THREE, P, threshold=0.5).tolist() == [[1, 0, 0], [0, 0, 0]]
    just = torch.tensor([[0.5, 0.25, 0.25]])
    assert torch.equal(blend_weights("soft", THREE, just, threshold=0.5), just)


def test_maps_are_treated_pixel_by_pixel():
    maps = P[..., None, None].expand(2, 3, 4, 5).clone()
    maps[0, :, 0, 0] = torch.tensor([0.1, 0.2, 0.7])
    one_hot = blend_weights("one_hot", THREE, maps, threshold=0.5)
    assert one_hot[0, :, 0, 0].tolist() == [0, 0, 1]
    assert one_hot[0, :, 1, 1].tolist() == [1, 0, 0]
    assert not one_hot[1].any()


def test_mixtures_have_several_labels():
    assert blend_weights("oracle", THREE, labels=torch.tensor([[0.5, 0.5, 0.0]])).tolist() == [[0.5, 0.5, 0]]


def test_soft_and_top_k_are_differentiable():
    logits = torch.randn(2, 3, requires_grad=True)
    blend_weights("soft", THREE, logits.softmax(1), top_k=2).square().sum().backward()
    assert logits.grad.abs().sum() > 0


def test_bad_input_names_both_sides():
    with pytest.raises(OptionError, match=r"unknown blend mode or adapter 'fog'.*Allowed: soft.*noise"):
        blend_weights("fog", THREE)
    with pytest.raises(
        OptionError,
        match="knows rain, fog; the adapters are rain, haze, noise. Without an adapter: fog. Unknown to the estimator: "
        "haze, noise",
    ):
        blend_weights("soft", THREE, P[:, :2], ["rain", "fog"])
    with pytest.raises(DataError, match=r"degradation 5, but there are 3 classes .*rain, haze, noise.*adapter"):
        blend_weights("oracle", THREE, labels=torch.tensor([0, 5]))
    with pytest.raises(DataError, match="2 shares per image were given, but there are 3 classes: rain, haze, noise"):
        blend_weights("oracle", THREE, labels=torch.tensor([[0.5, 0.5]]))
    with pytest.raises(OptionError, match="two adapters called 'rain'"):
        check_names(["rain", "haze", "rain"])
    with pytest.raises(OptionError, match="oracle needs the true degradation"):
        blend_weights("oracle", THREE)
    with pytest.raises(OptionError, match="needs an estimator"):
        blend_weights("soft", THREE)
