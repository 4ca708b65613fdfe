"""What holds for every degradation: range, shape, dtype, identity, monotone distance, exact rebuilding."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.registration import provided
from basicsr_plugins.degradations import build_degradation, degradation_names

NAMES = sorted(degradation_names().values())
WORSENING = [name for name in NAMES if name not in ("Clean", "RandomChoice")]
SETTINGS = settings(max_examples=12, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def photo():
    return np.ascontiguousarray(data.astronaut()[40:136, 170:266].astype(np.float32) / 255)


def example(name, **options):
    return build_degradation({"type": name, **provided("degradation")[name].example, **options})


@pytest.mark.parametrize("name", NAMES)
@SETTINGS
@given(
    height=st.integers(17, 70), width=st.integers(17, 70), seed=st.integers(0, 2**31),
    severity=st.one_of(st.none(), st.floats(0, 1)),
)  # fmt: skip
def test_range_shape_dtype_and_input_are_kept(name, height, width, seed, severity):
    rng = np.random.default_rng(seed)
    image = rng.random((height, width, 3), dtype=np.float32)
    before = image.copy()
    result = example(name)(image, rng, severity)
    assert result.image.shape == image.shape
    assert result.image.dtype == np.float32
    assert result.image.flags.c_contiguous
    assert result.image.min() >= 0
    assert result.image.max() <= 1
    np.testing.assert_array_equal(image, before)
    for layer in result.layers.values():
        assert layer.dtype == np.float32
        assert layer.shape[:2] == image.shape[:2]


@pytest.mark.parametrize("name", NAMES)
def test_severity_zero_is_the_identity(name, photo):
    result = example(name)(photo, np.random.default_rng(3), severity=0.0)
    np.testing.assert_array_equal(result.image, photo)
    assert result.image is not photo


@pytest.mark.parametrize("name", WORSENING)
@SETTINGS
@given(seed=st.integers(0, 2**31), low=st.floats(0, 0.7), step=st.floats(0.3, 1))
def test_more_severity_is_farther_from_the_clean_image(name, photo, seed, low, step):
    degradation = example(name)

    def distance(severity):
        result = degradation(photo, np.random.default_rng(seed), severity)
        return float(np.abs(result.image - photo).mean())

    # the same draws at both severities; a hundredth is left for kernels that grow in whole pixels
    assert distance(min(1.0, low + step)) >= 0.99 * distance(low)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", [None, 0.0, 0.4])
def test_the_same_seed_and_the_parameters_give_the_same_image(name, severity, photo):
    degradation = example(name)
    first = degradation(photo, np.random.default_rng(5), severity)
    second = example(name)(photo, np.random.default_rng(5), severity)
    np.testing.assert_array_equal(first.image, second.image)
    stored = json.loads(json.dumps(first.params))
    np.testing.assert_array_equal(degradation.rebuild(photo, stored).image, first.image)
    again = build_degradation(json.loads(json.dumps(degradation.options())))
    np.testing.assert_array_equal(again.rebuild(photo, stored).image, first.image)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("Clean", "Mosaic")])
def test_another_seed_gives_another_image(name, photo):
    degradation = example(name)
    images = [degradation(photo, np.random.default_rng(seed)).image for seed in range(6)]
    assert any((images[0] != image).any() for image in images[1:])


def test_severity_option_fixes_or_bounds_the_severity(photo):
    fixed = build_degradation({"type": "GaussianNoise", "severity": 0.5, "sigma": [10, 30]})
    assert fixed(photo, np.random.default_rng(0)).params["sigma"] == pytest.approx(20)
    ranged = build_degradation({"type": "GaussianNoise", "severity": [0.5, 1.0], "sigma": [10, 30]})
    sigmas = [ranged(photo, np.random.default_rng(seed)).params["sigma"] for seed in range(40)]
    assert 20 <= min(sigmas) < 22
    assert 28 < max(sigmas) <= 30


def test_ranges_are_drawn_over_their_whole_width(photo):
    noise = build_degradation({"type": "GaussianNoise", "sigma": [10, 30]})
    sigmas = [noise(photo[:16, :16], np.random.default_rng(seed)).params["sigma"] for seed in range(200)]
    assert 10 <= min(sigmas) < 11
    assert 29 < max(sigmas) <= 30
    assert np.mean(sigmas) == pytest.approx(20, abs=1.5)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("rian", r"x\.type: unknown degradation 'rian'\. Did you mean 'rain'"),
        ({"type": "Rain", "amuont": 1}, r"x\.amuont: unknown option 'amuont'. Did you mean 'amount'"),
        ({"type": "Rain", "width": [2]}, r"x\.width: expected odd widths"),
        ({"type": "Rain", "width": [1, 3], "width_weights": [1]}, r"one weight for each of the 2 widths"),
        ({"type": "GaussianNoise", "sigma": [30, 10]}, r"x\.sigma: must be \[low, high\]"),
        ({"type": "GaussianNoise", "sigmas": []}, r"x\.sigmas: expected levels"),
        ({"type": "GaussianNoise", "sigma": "25"}, r"x\.sigma: expected"),
        ({"type": "JPEG", "quality": [0, 50]}, r"x\.quality: must lie in \[1, 100\]"),
        ({"type": "JPEG", "qualities": [0]}, r"x\.qualities: expected whole numbers"),
        ({"type": "CDD", "mix": "lowhaze"}, r"x\.mix: unknown mix 'lowhaze'. Did you mean 'low_haze'"),
        ({"type": "Sequence"}, r"x\.steps: expected at least one"),
        ({"type": "Sequence", "steps": ["GaussianBlur", "JPG"]}, r"x\.steps\[1\]\.type: unknown degradation 'JPG'"),
        ({"type": "RandomChoice", "choices": [{"type": "Snow", "weight": 0}]}, r"x\.choices: weights"),
        ({"sigma": 3}, r"x: expected a degradation such as"),
        ({"type": "Haze", "severity": 2}, r"x\.severity: must lie in \[0, 1\]"),
    ],
)
def test_wrong_options_are_named_with_their_path(entry, text):
    with pytest.raises(OptionError, match=text):
        build_degradation(entry, "x")


def test_wrong_images_and_severities_are_refused(photo):
    noise = build_degradation("noise")
    with pytest.raises(DataError, match=r"uint8 \(96, 96, 3\)"):
        noise((photo * 255).astype(np.uint8), np.random.default_rng(0))
    with pytest.raises(DataError, match=r"float32 \(96, 96\)"):
        noise(photo[:, :, 0], np.random.default_rng(0))
    with pytest.raises(OptionError, match="severity must lie between 0 and 1"):
        noise(photo, np.random.default_rng(0), severity=1.5)
