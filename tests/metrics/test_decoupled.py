"""E_R, E_B and their company: identities, an independent computation, what is skipped."""

from __future__ import annotations

import numpy as np
import pytest

from basicsr_plugins.degradations.rain_degradation import Rain, rain_mask
from basicsr_plugins.errors import DataError
from basicsr_plugins.metrics.decoupled import degradation_removal, pair_mask, rain_scores


@pytest.fixture
def rainy_pair():
    clean = np.random.default_rng(0).uniform(0.1, 0.6, (48, 40, 3)).astype(np.float32)
    result = Rain(preset="medium")(clean, np.random.default_rng(1))
    return result.image, clean, rain_mask(result.layers["rain"])


def by_loop(output, rainy, clean, mask):
    removed = background = oracle = left = 0.0
    rain = other = 0
    for y, x, c in np.ndindex(*output.shape):
        value = min(max(float(output[y, x, c]), 0.0), 1.0)
        if mask[y, x]:
            removed += (value - float(rainy[y, x, c])) ** 2
            oracle += (float(clean[y, x, c]) - float(rainy[y, x, c])) ** 2
            left += (value - float(clean[y, x, c])) ** 2
            rain += 1
        else:
            background += (value - float(clean[y, x, c])) ** 2
            other += 1
    return (removed / rain) ** 0.5, (background / other) ** 0.5, (oracle / rain) ** 0.5, (left / rain) ** 0.5


def test_scores_equal_a_loop(rainy_pair):
    rainy, clean, mask = rainy_pair
    output = (clean + np.random.default_rng(2).normal(0, 0.5, clean.shape)).astype(np.float32)  # clipping matters
    scores = rain_scores(output, rainy, clean, mask)
    e_r, e_b, oracle, residual = by_loop(output, rainy, clean, mask)
    assert (scores.e_r, scores.e_b, scores.e_r_oracle, scores.residual) == pytest.approx((e_r, e_b, oracle, residual))
    assert scores.removal_ratio == pytest.approx(e_r / oracle)


def test_identity_network_has_nothing_and_a_perfect_one_the_oracle(rainy_pair):
    rainy, clean, mask = rainy_pair
    idle = rain_scores(rainy, rainy, clean, mask)
    assert (idle.e_r, idle.removal_ratio) == (0, 0)
    assert idle.e_b < 10 / 255  # what rain there is outside the mask lies below its threshold
    assert idle.residual == idle.e_r_oracle
    perfect = rain_scores(clean, rainy, clean, mask)
    assert perfect.e_r == perfect.e_r_oracle > 0
    assert (perfect.e_b, perfect.residual, perfect.removal_ratio) == (0, 0, 1)


def test_identity_network_is_exactly_zero_where_rain_is_only_in_the_mask():
    clean = np.full((20, 20, 3), 0.3, dtype=np.float32)
    rainy = clean.copy()
    rainy[:, :5] += 0.4
    idle = rain_scores(rainy, rainy, clean, pair_mask(rainy, clean))
    assert (idle.e_r, idle.e_b) == (0, 0)
    assert idle.e_r_oracle == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("rainy_columns", [0, 100])
def test_an_image_without_rain_or_without_background_is_skipped(rainy_columns):
    clean = np.zeros((10, 100, 3), dtype=np.float32)
    rainy = clean.copy()
    rainy[:, :rainy_columns] = 0.5
    assert rain_scores(rainy, rainy, clean, pair_mask(rainy, clean)) is None
    rainy[:, :] = 0
    rainy[:, :50] = 0.5
    assert rain_scores(rainy, rainy, clean, pair_mask(rainy, clean)) is not None


def test_pair_mask_takes_the_largest_channel_and_the_threshold():
    clean = np.zeros((1, 3, 3), dtype=np.float32)
    rainy = clean.copy()
    rainy[0, 1, 2] = 11 / 255
    rainy[0, 2, 0] = 9 / 255
    assert pair_mask(rainy, clean).tolist() == [[False, True, False]]
    assert pair_mask(rainy, clean, threshold=8 / 255).tolist() == [[False, True, True]]


def test_degradation_removal_is_a_projection():
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.4, 0.6, (8, 8, 3))
    noisy = clean + rng.normal(0, 0.05, clean.shape)
    assert degradation_removal(noisy, noisy, clean) == pytest.approx(0)
    assert degradation_removal(clean, noisy, clean) == pytest.approx(1)
    assert degradation_removal(0.25 * clean + 0.75 * noisy, noisy, clean) == pytest.approx(0.25)
    assert degradation_removal(clean, clean, clean) is None


def test_shapes_that_differ_are_refused():
    image = np.zeros((4, 4, 3))
    with pytest.raises(DataError, match="clean is"):
        rain_scores(image, image, np.zeros((4, 5, 3)), np.zeros((4, 4), dtype=bool))
