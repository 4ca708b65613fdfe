"""Rain removal and background error: identities, oracle, masks, skipping."""

import math

import numpy as np
import pytest

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.metrics.deraining import decoupled_errors, difference_mask
from basicsr_plugins.metrics.deraining_metric import calculate_background_error, calculate_rain_removal


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    clean = rng.integers(20, 150, (40, 50, 3)).astype(np.uint8)
    rainy = clean.copy()
    rainy[:, 10:20] += rng.integers(30, 100, (40, 10, 1)).astype(np.uint8)
    mask = np.zeros((40, 50), dtype=np.float32)
    mask[:, 10:20] = 1
    return clean, rainy, mask


def reference(output, rainy, clean, mask):
    """The definition, pixel by pixel."""
    removal, background = [], []
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            for channel in range(3):
                y, o, b = (float(image[row, column, channel]) / 255 for image in (output, rainy, clean))
                (removal if mask[row, column] else background).append(
                    (y - o) ** 2 if mask[row, column] else (y - b) ** 2
                )
    return math.sqrt(sum(removal) / len(removal)), math.sqrt(sum(background) / len(background))


def test_it_is_the_definition(scene):
    clean, rainy, mask = scene
    output = np.random.default_rng(1).integers(0, 256, clean.shape).astype(np.uint8)
    removal, background = reference(output, rainy, clean, mask)
    errors = decoupled_errors(output / 255, rainy / 255, clean / 255, mask)
    assert errors.removal == pytest.approx(removal)
    assert errors.background == pytest.approx(background)
    assert errors.rain_share == pytest.approx(0.2)
    assert calculate_rain_removal(output, clean, rainy, mask) == pytest.approx(255 * removal)
    assert calculate_background_error(output, clean, rainy, mask) == pytest.approx(255 * background)


def test_a_network_that_does_nothing_has_zero_and_the_clean_image_removes_all(scene):
    clean, rainy, mask = scene
    for given in (mask, None):  # the mask of a pair is where the two differ
        idle = [
            function(rainy, clean, rainy, given) for function in (calculate_rain_removal, calculate_background_error)
        ]
        assert idle == [0, 0]
        assert calculate_rain_removal(rainy, clean, rainy, given, form="ratio") == 0
        assert calculate_rain_removal(clean, clean, rainy, given, form="ratio") == pytest.approx(1)
        assert calculate_rain_removal(clean, clean, rainy, given, form="residual") == 0
        assert calculate_rain_removal(rainy, clean, rainy, given, form="residual") > 30
        assert calculate_background_error(clean, clean, rainy, given) == 0


def test_the_output_is_clipped_first(scene):
    clean, rainy, mask = (scene[0] / 255, scene[1] / 255, scene[2])
    wild = np.where(mask[..., None] > 0, 3.0, -2.0) * np.ones_like(clean)
    assert decoupled_errors(wild, rainy, clean, mask) == decoupled_errors(np.clip(wild, 0, 1), rainy, clean, mask)


def test_options_of_the_metrics_are_used(scene):
    clean, rainy, mask = scene
    output = np.random.default_rng(1).integers(0, 256, clean.shape).astype(np.uint8)
    # a higher threshold sees only the heavier rain
    heavy = (rainy.astype(int) - clean).max(axis=2) > 60
    found = calculate_rain_removal(output, clean, rainy, threshold=60.0)
    assert found == pytest.approx(255 * reference(output, rainy, clean, heavy)[0])
    assert found != pytest.approx(calculate_rain_removal(output, clean, rainy), rel=1e-3)
    # it rains on a fifth of the picture
    for share, known in ((0.19, True), (0.21, False)):
        assert math.isnan(calculate_rain_removal(output, clean, rainy, mask, min_share=share)) is not known
    # the border is taken off a given mask too
    inner = [image[10:-10, 10:-10] for image in (output, clean, rainy, mask)]
    assert calculate_rain_removal(output, clean, rainy, mask, crop_border=10) == calculate_rain_removal(*inner)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_difference_of_just_the_threshold_is_background(kind):
    levels = np.arange(240, dtype=kind).reshape(12, 20, 1)
    for difference, rains in ((10, False), (11, True)):
        mask = difference_mask((levels + difference) / kind(255), levels / kind(255))
        assert (mask == rains).all()


def test_mask_of_a_pair_and_border(scene):
    clean, rainy, mask = scene
    np.testing.assert_array_equal(difference_mask(rainy / 255, clean / 255), mask > 0)
    output = rainy.copy()
    output[:4] = 0
    assert calculate_background_error(output, clean, rainy) > 0
    assert calculate_background_error(output, clean, rainy, crop_border=4) == 0


def test_images_without_rain_or_without_background_are_nan(scene):
    clean, rainy, _ = scene
    assert math.isnan(calculate_rain_removal(clean, clean, clean))
    everywhere = np.ones(clean.shape[:2])
    assert math.isnan(calculate_background_error(clean, clean, rainy, everywhere))
    assert calculate_rain_removal(clean, clean, rainy, everywhere) > 0


def test_what_is_missing_is_said(scene):
    clean, rainy, mask = scene
    with pytest.raises(DataError, match="set model_type to RestorationModel"):
        calculate_rain_removal(clean, clean)
    with pytest.raises(DataError, match="need the rainy input"):
        calculate_rain_removal(clean, clean, rain_mask=mask)
    with pytest.raises(DataError, match="shapes differ"):
        calculate_background_error(clean[:-1], clean, rainy)
    assert calculate_rain_removal.higher_is_better is True
    assert calculate_background_error.higher_is_better is False


def test_they_work_under_val_metrics():
    import basicsr_plugins

    basicsr_plugins.register()
    from basicsr.metrics import calculate_metric

    image = np.full((8, 8, 3), 100, dtype=np.uint8)
    rainy = image.copy()
    rainy[:, :4] = 180
    data = {"img": image, "img2": image, "img_lq": rainy}
    assert calculate_metric(data, {"type": "calculate_rain_removal"}) == pytest.approx(80)
