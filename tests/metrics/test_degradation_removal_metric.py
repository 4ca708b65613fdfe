"""Removal of a degradation without a mask: a projection, and its form as a metric of an option file."""

from __future__ import annotations

import numpy as np
import pytest

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.metrics.degradation_removal_metric import calculate_degradation_removal, degradation_removal


def test_identity_perfect_and_in_between():
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.4, 0.6, (8, 8, 3))
    noisy = clean + rng.normal(0, 0.05, clean.shape)
    assert degradation_removal(noisy, noisy, clean) == pytest.approx(0)
    assert degradation_removal(clean, noisy, clean) == pytest.approx(1)
    assert degradation_removal(0.25 * clean + 0.75 * noisy, noisy, clean) == pytest.approx(0.25)
    assert np.isnan(degradation_removal(clean, clean, clean))


def test_equals_a_loop_and_clips_the_output():
    rng = np.random.default_rng(1)
    output, noisy, clean = rng.normal(0.5, 0.6, (4, 3)), rng.random((4, 3)), rng.random((4, 3))
    over = under = 0.0
    for o, n, c in zip(output.ravel(), noisy.ravel(), clean.ravel()):
        over += (min(max(o, 0.0), 1.0) - c) * (n - c)
        under += (n - c) ** 2
    assert degradation_removal(output, noisy, clean) == pytest.approx(1 - over / under)


def test_metric_takes_uint8_and_crops():
    rng = np.random.default_rng(2)
    clean, noisy = rng.integers(0, 255, (2, 10, 12, 3), dtype=np.uint8)
    assert calculate_degradation_removal(noisy, clean, noisy) == pytest.approx(0)
    output = noisy.copy()
    output[2:-2, 2:-2] = clean[2:-2, 2:-2]
    assert calculate_degradation_removal(output, clean, noisy, crop_border=2) == pytest.approx(1)
    assert calculate_degradation_removal(output, clean, noisy) < 0.9
    assert calculate_degradation_removal.higher_is_better


def test_input_is_needed_and_shapes_must_agree():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="RestorationModel"):
        calculate_degradation_removal(image, image)
    with pytest.raises(DataError, match="shapes differ"):
        calculate_degradation_removal(image, image, image[:2])
