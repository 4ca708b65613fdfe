"""What each parameter does to the image: the formula written out, or the image measured."""

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from basicsr_plugins.degradations import build_degradation
from basicsr_plugins.degradations.base import field_rng
from basicsr_plugins.degradations.blur_degradation import motion_kernel, sparse_filter
from basicsr_plugins.degradations.fields import scaled_normal, scratch
from basicsr_plugins.degradations.haze_degradation import smooth_depth
from basicsr_plugins.degradations.low_light_degradation import guided_filter
from basicsr_plugins.degradations.rain_degradation import rain_layer, rain_mask, streak_kernel
from basicsr_plugins.degradations.raindrop_degradation import Raindrop


@pytest.fixture(scope="module")
def photo():
    return np.ascontiguousarray(data.astronaut()[40:136, 170:266].astype(np.float32) / 255)


def rng(seed=0):
    return np.random.default_rng(seed)


def grey(level, side=64):
    return np.full((side, side, 3), level, dtype=np.float32)


# --- noise


def test_exact_noise_draws_every_value_and_so_do_large_fields():
    noise = build_degradation({"type": "GaussianNoise", "sigma": 25.5, "exact": True, "clip": False})
    result = noise(grey(0.5), rng())
    drawn = field_rng(result.params).standard_normal((64, 64, 3), dtype=np.float32)
    np.testing.assert_allclose(result.image, 0.5 + 0.1 * drawn, atol=1e-6)
    large = scaled_normal(rng(3), (800, 700), 2.0)
    np.testing.assert_array_equal(large, 2 * rng(3).standard_normal((800, 700), dtype=np.float32))


class Places:
    """A generator that puts the two windows and the angle of a noise field where it is told to."""

    def __init__(self, *draws):
        self.draws = draws

    def random(self, count):
        return self.draws


def test_noise_fields_turn_between_two_windows_placed_independently():
    def field(*draws):
        return scaled_normal(Places(*draws), (8, 8, 3), 1.0)

    np.testing.assert_array_equal(field(0.1, 0.2, 0.0), field(0.1, 0.7, 0.0))  # angle 0: the first window alone
    np.testing.assert_allclose(field(0.1, 0.2, 0.25), field(0.6, 0.2, 0.25), atol=1e-5)  # a quarter turn: the second
    halfway = (field(0.1, 0.2, 0.0) + field(0.1, 0.2, 0.25)) * np.sqrt(0.5)
    np.testing.assert_allclose(field(0.1, 0.2, 0.125), halfway, atol=1e-5)


@pytest.mark.parametrize("name", ["GaussianNoise", "PoissonNoise", "SpeckleNoise", "CorrelatedNoise"])
def test_every_noise_keeps_the_conventions(name):
    image = grey(0.97)
    raw = build_degradation({"type": name, "clip": False, "severity": 1.0})(image, rng()).image
    assert raw.max() > 1
    clipped = build_degradation({"type": name, "severity": 1.0})(image, rng()).image
    np.testing.assert_array_equal(clipped, np.clip(raw, 0, 1))
    rounded = build_degradation({"type": name, "severity": 1.0, "quantize": "round"})(image, rng()).image
    np.testing.assert_allclose(rounded * 255, np.rint(clipped * 255), atol=1e-3)


def test_photons_of_an_image_that_left_its_range():
    below = grey(-0.1)
    result = build_degradation({"type": "PoissonNoise", "peak": 100, "clip": False})(below, rng())
    assert (result.image == 0).all()


def test_more_salt_and_pepper_only_adds_to_less(photo):
    inner = np.clip(photo, 0.01, 0.99)
    few, many = (
        build_degradation({"type": "SaltPepperNoise", "density": density})(inner, rng()).image
        for density in (0.05, 0.2)
    )
    for value in (0.0, 1.0):
        assert (few == value).any()
        assert (many[few == value] == value).all()


# --- blur


@pytest.mark.parametrize("kernel", ["aniso", "generalized", "plateau"])
def test_kernel_families_are_basicsrs(kernel, photo):
    from basicsr.data import degradations as stock

    blur = build_degradation({"type": "GaussianBlur", "sigma": 2.0, "kernel": kernel, "ratio": 0.4, "truncate": 2.0})
    results = [blur(photo, rng(seed)) for seed in (0, 1)]
    assert results[0].params["angle"] != results[1].params["angle"]
    for result in results:
        family = {
            "aniso": stock.bivariate_Gaussian,
            "generalized": stock.bivariate_generalized_Gaussian,
            "plateau": stock.bivariate_plateau,
        }[kernel]
        shape = {"beta": result.params["beta"]} if "beta" in result.params else {}
        expected = family(9, 2.0, 0.8, result.params["angle"], **shape, isotropic=False)
        filtered = cv2.filter2D(photo, -1, expected.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(result.image, np.clip(filtered, 0, 1), atol=1e-5)


@pytest.mark.parametrize("length", [4.0, 18.0, 60.0])
@pytest.mark.parametrize(("angle", "curve"), [(0.0, 0.0), (90.0, 0.0), (35.0, 0.0), (120.0, 80.0)])
def test_sparse_filtering_is_filter2d(length, angle, curve, photo):
    kernel = motion_kernel(length, angle, curve)
    lopsided = np.zeros((9, 9), dtype=np.float32)
    lopsided[1, 6:8] = 0.5  # what is not 0 lies beside the middle
    for each in (kernel, lopsided):
        expected = cv2.filter2D(photo, -1, each, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(sparse_filter(photo, each), np.clip(expected, 0, 1), atol=1e-5)


def test_a_curve_bends_the_motion():
    straight, bent = motion_kernel(30, 0, 0), motion_kernel(30, 0, 90)
    assert (straight.sum(axis=1) > 1e-3).sum() <= 3
    assert (bent.sum(axis=1) > 1e-3).sum() > 5


def test_defocus_rounds_to_its_step():
    blur = build_degradation({"type": "DefocusBlur", "radius": [1, 8], "step": 1.0})
    assert {blur.parameters(rng(seed), (8, 8))["radius"] for seed in range(80)} == set(range(1, 9))


def test_working_memory_grows_with_what_is_asked_for():
    assert scratch("of this test", (2, 2, 3)).shape == (2, 2, 3)
    assert scratch("of this test", (5, 7, 3)).shape == (5, 7, 3)


# --- rain, snow


def test_rain_layers_are_made_as_written_down():
    kernel, amount = streak_kernel(9, 3, 20.0), 0.03
    noise = rng(2).random((40, 50), dtype=np.float32)
    noise[noise < 1 - amount] = 0
    sharpened = ndimage.correlate(noise, np.array([[0, 0.1, 0], [0.1, 8, 0.1], [0, 0.1, 0]]), mode="mirror")
    drops = ndimage.correlate(sharpened, kernel, mode="mirror")
    expected = (drops - drops.min()) / (drops.max() - drops.min()) * 255
    layer = rain_layer((40, 50), rng(2), amount, kernel) * 255
    np.testing.assert_allclose(layer, np.rint(layer), atol=1e-3)  # whole grey levels
    assert (np.abs(layer - np.floor(expected + 1e-3)) > 0.5).mean() < 0.01
    assert (rain_layer((16, 16), rng(), 0.0, kernel) == 0).all()


@pytest.mark.parametrize("shrink", [False, True])
def test_rain_is_made_of_its_parameters(shrink):
    rain = build_degradation({"type": "Rain", "preset": "small", "shrink": shrink, "angle": 30})
    result = rain(grey(0.2), rng())
    params = result.params
    kernel = streak_kernel(params["length"], params["width"], params["angle"], shrink)
    expected = rain_layer((64, 64), field_rng(params), params["amount"], kernel)
    np.testing.assert_allclose(result.layers["rain"], params["beta"] * expected, atol=1e-6)
    half = rain.rebuild(grey(0.2), {**params, "beta": params["beta"] / 2}).layers["rain"]
    np.testing.assert_allclose(half, result.layers["rain"] / 2, atol=1e-6)


def test_the_threshold_of_the_rain_mask():
    layer = np.linspace(0, 1, 11, dtype=np.float32)[None]
    assert rain_mask(layer, 0.55).sum() == 5
    assert rain_mask(layer).sum() == 10


def snow(**options):
    given = {"type": "Snow", "density": 0.6, "radius": 3, "fall": 0, "angle": 0, **options}
    return build_degradation(given)(grey(0.0, 256), rng()).layers["snow"]


def spread(layer):
    """How much the layer changes from row to row and from column to column: small along the fall."""
    return np.abs(np.diff(layer, axis=0)).mean(), np.abs(np.diff(layer, axis=1)).mean()


def test_snow_falls_along_its_angle():
    down, across = spread(snow(fall=30))
    assert down < 0.5 * across
    down, across = spread(snow(fall=30, angle=90))
    assert across < 0.5 * down
    assert (snow(fall=30) > 0.05).sum() > 1.5 * (snow() > 0.05).sum()


def test_flakes_have_their_radius_and_their_number():
    assert (snow(radius=6) > 0.3).sum() > 2.5 * (snow(radius=3) > 0.3).sum()
    quarter = build_degradation({"type": "Snow", "density": 4, "radius": 1, "fall": 0})
    shares = [(quarter(grey(0.0, side), rng()).layers["snow"] > 0.2).mean() for side in (64, 256)]
    assert shares[0] == pytest.approx(shares[1], rel=0.3)  # so many per pixel, whatever the size


# --- haze, low light


def test_depth_without_a_map_is_as_uneven_as_asked_for():
    for cells in (1, 12):
        result = build_degradation({"type": "Haze", "cells": cells})(grey(0.5), rng())
        expected = smooth_depth((64, 64), field_rng(result.params), cells)
        np.testing.assert_array_equal(result.layers["depth"], expected)


@pytest.mark.parametrize("model", ["gamma", "retinex"])
def test_low_light_is_noisy(model):
    options = {"type": "LowLight", "model": model, "gamma": 1.5, "brightness": 1.0, "noise": 0.04}
    image = build_degradation(options)(grey(0.5), rng()).image
    assert image.std() == pytest.approx(0.04, rel=0.1)


def test_retinex_multiplies_by_a_smoothed_light(photo):
    options = {"type": "LowLight", "model": "retinex", "gamma": 2.5, "noise": 0.0}
    luma = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    light = np.clip(guided_filter(luma, photo.max(axis=2), 3, 0.01), 1e-3, 1)
    expected = photo / light[:, :, None] * light[:, :, None] ** 2.5
    np.testing.assert_allclose(build_degradation(options)(photo, rng()).image, np.clip(expected, 0, 1), atol=1e-4)


def test_guided_filter_keeps_edges_above_its_eps():
    step = np.zeros((16, 16), dtype=np.float32)
    step[:, 8:] = 0.5
    np.testing.assert_allclose(guided_filter(step, step, 3, 1e-6), step, atol=1e-3)
    # far below it, it is a box filter twice over
    np.testing.assert_allclose(guided_filter(step, step, 3, 1e3)[:, 7:9], [[1 / 6, 1 / 3]] * 16, atol=1e-3)


# --- strokes, drops, mosaic


def test_strokes_have_their_number_and_thickness():
    def covered(**options):
        given = {"type": "InpaintingStrokes", "count": 6, "thickness": 5, **options}
        return np.mean([build_degradation(given)(grey(0.5, 128), rng(s)).layers["stroke"].mean() for s in range(5)])

    assert covered(count=12) > 1.4 * covered()
    assert covered(thickness=10) > 1.4 * covered()
    assert covered(count=1) < 0.5 * covered()


def drops(image=None, **options):
    given = {"type": "Raindrop", "count": 6, "radius": 0.05, **options}
    return build_degradation(given)(grey(0.5, 128) if image is None else image, rng(1))


def test_drops_have_their_number_and_radius():
    share = drops().layers["raindrop"].mean()
    assert drops(count=1).layers["raindrop"].mean() < 0.5 * share
    assert drops(radius=0.1).layers["raindrop"].mean() == pytest.approx(4 * share, rel=0.35)


def test_a_drop_shows_the_scene_upside_down_and_blurred():
    scene = grey(0.1, 128)
    scene[:64] = 0.7  # a bright sky
    through, cover = scene.copy(), np.zeros((128, 128), dtype=np.float32)
    Raindrop._drop(scene, through, cover, 64.0, 64.0, 20.0, 0.0, 0.5, 0.0)  # one drop on the horizon
    assert cover[64, 64] == 1
    assert (through[52:60, 68] < 0.3).all()
    assert (through[68:76, 68] > 0.5).all()
    stripes = grey(0.0, 128)
    stripes[:, ::2] = 1
    seen = drops(stripes, count=4, radius=0.3)
    inside = seen.layers["raindrop"] > 0.99
    assert np.median(np.abs(seen.image[..., 0][inside] - 0.5)) < 0.25  # single pixels are not told apart


def test_half_a_mosaic_is_half_the_way(photo):
    mosaic = build_degradation("mosaic")
    full, half = mosaic(photo, rng()).image, mosaic(photo, rng(), severity=0.5).image
    np.testing.assert_allclose(half, (photo + full) / 2, atol=1e-6)
    edges = np.zeros_like(photo, dtype=bool)
    edges[:2], edges[-2:], edges[:, :2], edges[:, -2:] = True, True, True, True
    assert np.abs(full - photo)[edges].mean() < 2 * np.abs(full - photo)[~edges].mean()


def test_methods_of_demosaicing_differ(photo):
    images = [
        build_degradation({"type": "Mosaic", "method": method})(photo, rng()).image
        for method in ("edge_aware", "bilinear")
    ]
    assert np.abs(images[0] - images[1]).mean() > 1e-4


# --- compositions


def test_depth_maps_and_layers_reach_the_member_that_uses_them():
    depth = np.full((64, 64), 0.25, dtype=np.float32)
    hazes = [{"type": "Haze", "beta": 2.0}]
    for entry in ({"type": "Sequence", "steps": hazes}, {"type": "RandomChoice", "choices": hazes}):
        result = build_degradation(entry)(grey(0.5), rng(), depth=depth)
        np.testing.assert_allclose(result.layers["transmission"], np.exp(-0.5), rtol=1e-5)


def test_cdd_smooths_its_depth():
    step = np.zeros((64, 64), dtype=np.float32)
    step[:, 32:] = 0.6
    haze = build_degradation({"type": "CDD", "mix": "haze"})(grey(0.5), rng(), depth=step).layers["transmission"]
    assert np.abs(np.diff(haze, axis=1)).max() < 0.1
