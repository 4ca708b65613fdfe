"""Nonsense for every option of every degradation, in Python and in option files: a typed error, or a sound image."""

import dataclasses
import functools
import math

import numpy as np
import pytest

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provided
from basicsr_plugins.degradations import build_degradation
from basicsr_plugins.degradations.noise_degradation import GaussianNoise, PoissonNoise

NONSENSE = [
    -5, -1, 0, 3, 1.5, 1e9, 10**400, math.nan, math.inf, -math.inf, True, None, "x", "", "1e-3", object(),
    [], [1], [1, 2], [2, 1], (1, 2), [1, 2, 3], [[1]], [None, None], ["a", "b"], [math.nan, 1], {}, {"a": 1},
]  # fmt: skip
KINDS = sorted(provided("degradation"))


@pytest.mark.parametrize("name", KINDS)
def test_a_typed_error_or_a_sound_image(name):
    kind = provided("degradation")[name]
    image = np.random.default_rng(0).random((12, 16, 3), dtype=np.float32)
    for field in dataclasses.fields(kind):
        for value in NONSENSE:
            given = {**kind.example, field.name: value}
            outcomes = []
            for build in (
                functools.partial(kind, **given),
                functools.partial(build_degradation, {"type": name, **given}),
            ):
                try:
                    degradation = build()
                    results = [degradation(image, np.random.default_rng(1), severity=s) for s in (None, 0.5, 1.0)]
                except OptionError:
                    outcomes.append(None)
                    continue
                for result in results:
                    assert result.image.shape == image.shape, (field.name, value)
                    assert result.image.dtype == np.float32
                    assert np.isfinite(result.image).all(), (field.name, value)
                outcomes.append(results[0].image)
            if outcomes[0] is None or outcomes[1] is None:
                assert outcomes[0] is outcomes[1], (field.name, value)  # Python and YAML agree
            else:
                np.testing.assert_array_equal(*outcomes)


@pytest.mark.parametrize("severity", [-0.1, 1.1, math.nan, math.inf, "x", "0.5", [0.5], True, {}, 10**400])
@pytest.mark.parametrize("name", KINDS)
def test_a_severity_is_a_number_from_0_to_1(name, severity):
    kind = provided("degradation")[name]
    image = np.zeros((8, 8, 3), np.float32)
    with pytest.raises(OptionError, match="severity must lie between 0 and 1"):
        kind(**kind.example)(image, np.random.default_rng(0), severity=severity)


def test_the_seen_ones():
    with pytest.raises(OptionError, match=r"sigma: must lie in \[0, 255\], got -5"):
        GaussianNoise(sigma=-5)
    image = np.full((8, 8, 3), 0.5, np.float32)
    listed, plain = (PoissonNoise(peak=peak)(image, np.random.default_rng(0)) for peak in ([20, 40], (20.0, 40.0)))
    np.testing.assert_array_equal(listed.image, plain.image)
    assert 20 <= listed.params["peak"] <= 40
