"""What each family does: its formula, its layer, its parity with the library it follows."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.degradations import build_degradation
from basicsr_plugins.degradations.blur_degradation import disc_kernel, gaussian_kernel, motion_kernel
from basicsr_plugins.degradations.haze_degradation import smooth_depth
from basicsr_plugins.degradations.mosaic_degradation import bayer_mosaic
from basicsr_plugins.degradations.rain_degradation import RAIN_PRESETS, rain_mask, streak_kernel

SETTINGS = settings(max_examples=15, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def photo():
    return np.ascontiguousarray(data.astronaut()[40:168, 170:298].astype(np.float32) / 255)


def rng(seed=0):
    return np.random.default_rng(seed)


# --- noise


@SETTINGS
@given(sigma=st.floats(1, 60), seed=st.integers(0, 2**31))
def test_gaussian_noise_has_its_sigma_and_no_mean(sigma, seed):
    grey = np.full((64, 64, 3), 0.5, dtype=np.float32)
    noise = build_degradation({"type": "GaussianNoise", "sigma": sigma, "clip": False})
    field = (noise(grey, rng(seed)).image - grey) * 255
    count = field.size
    assert field.std() == pytest.approx(sigma, rel=5 / np.sqrt(2 * count))  # five standard errors
    assert abs(field.mean()) < 5 * sigma / np.sqrt(count)
    assert abs(np.corrcoef(field[:, 1:, 0].ravel(), field[:, :-1, 0].ravel())[0, 1]) < 0.09  # white
    assert abs(np.corrcoef(field[..., 0].ravel(), field[..., 1].ravel())[0, 1]) < 0.09


def test_the_conventions_of_noise_differ_as_published(photo):
    def make(**options):
        return build_degradation({"type": "GaussianNoise", "sigma": 50, **options})(photo, rng()).image

    raw, clipped = make(clip=False), make()
    assert raw.min() < 0
    assert raw.max() > 1
    np.testing.assert_array_equal(clipped, np.clip(raw, 0, 1))
    floored = make(quantize="floor") * 255
    np.testing.assert_allclose(floored, np.rint(floored), atol=1e-4)
    np.testing.assert_array_equal(np.rint(floored), np.floor(np.clip(raw, 0, 1) * np.float32(255) + np.float32(1e-4)))
    rounded = make(quantize="round") * 255
    np.testing.assert_allclose(np.abs(rounded - clipped * 255).max(), 0.5, atol=1e-2)


def test_quantising_noise_of_sigma_zero_keeps_every_grey_level():
    levels = np.repeat((np.arange(256, dtype=np.float32) / np.float32(255)).reshape(16, 16, 1), 3, axis=2)
    for quantize in ("round", "floor"):
        noise = build_degradation({"type": "GaussianNoise", "sigma": 0, "quantize": quantize})
        np.testing.assert_array_equal(np.rint(noise(levels, rng()).image * 255), np.rint(levels * 255))


def test_gaussian_noise_levels_and_grey_noise(photo):
    noise = build_degradation({"type": "GaussianNoise", "sigmas": [15, 25, 50]})
    assert {noise(photo[:8, :8], rng(seed)).params["sigma"] for seed in range(40)} == {15, 25, 50}
    grey = (
        build_degradation({"type": "GaussianNoise", "sigma": 25, "grey": True, "clip": False})(photo, rng()).image
        - photo
    )
    np.testing.assert_allclose(grey[..., 0], grey[..., 1], atol=1e-6)


@SETTINGS
@given(peak=st.floats(20, 2000), level=st.floats(0.2, 0.8))
def test_poisson_noise_has_the_variance_of_photons(peak, level):
    grey = np.full((64, 64, 3), level, dtype=np.float32)
    out = build_degradation({"type": "PoissonNoise", "peak": peak, "clip": False})(grey, rng()).image
    assert out.mean() == pytest.approx(level, rel=0.03)
    assert out.var() == pytest.approx(level / peak, rel=0.1)


def test_speckle_noise_grows_with_the_signal():
    noise = build_degradation({"type": "SpeckleNoise", "variance": 0.04, "clip": False})
    for level in (0.2, 0.8):
        grey = np.full((64, 64, 3), level, dtype=np.float32)
        assert noise(grey, rng()).image.std() == pytest.approx(0.2 * level, rel=0.03)


def test_salt_and_pepper_density_and_layer(photo):
    noise = build_degradation({"type": "SaltPepperNoise", "density": 0.1, "salt": 0.25})
    inner = np.clip(photo, 0.01, 0.99)
    result = noise(inner, rng())
    white, black = (result.image == 1).all(axis=2), (result.image == 0).all(axis=2)
    assert white.mean() == pytest.approx(0.025, rel=0.2)
    assert black.mean() == pytest.approx(0.075, rel=0.15)
    np.testing.assert_array_equal(result.layers["salt_pepper"] > 0, white | black)
    untouched = ~(white | black)
    np.testing.assert_array_equal(result.image[untouched], inner[untouched])


def test_correlated_noise_has_its_sigma_and_its_correlation():
    grey = np.full((128, 128, 3), 0.5, dtype=np.float32)
    noise = build_degradation({"type": "CorrelatedNoise", "sigma": 20, "box": 3, "clip": False})
    field = (noise(grey, rng()).image - grey) * 255
    assert field[4:-4, 4:-4].std() == pytest.approx(20, rel=0.05)
    neighbours = np.corrcoef(field[:, 1:, 0].ravel(), field[:, :-1, 0].ravel())[0, 1]
    assert neighbours == pytest.approx(2 / 3, abs=0.06)  # a box of three shares two


# --- blur


@SETTINGS
@given(sigma=st.floats(0.5, 5), ratio=st.floats(0.2, 1), angle=st.floats(-3, 3))
def test_gaussian_kernel_equals_basicsr(sigma, ratio, angle):
    from basicsr.data.degradations import bivariate_Gaussian

    ours = gaussian_kernel(21, sigma, sigma * ratio, angle)
    stock = bivariate_Gaussian(21, sigma, sigma * ratio, angle, isotropic=False)
    np.testing.assert_allclose(ours, stock, atol=1e-6)


def test_isotropic_gaussian_blur_equals_basicsr_kernel(photo):
    from basicsr.data.degradations import bivariate_Gaussian

    blur = build_degradation({"type": "GaussianBlur", "sigma": 2.0})
    kernel = bivariate_Gaussian(13, 2.0, 2.0, 0.0)
    expected = cv2.filter2D(photo, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(blur(photo, rng()).image, expected, atol=2e-6)


@pytest.mark.parametrize("kernel", ["aniso", "generalized", "plateau"])
def test_other_kernel_families_blur_and_keep_the_mean(kernel, photo):
    result = build_degradation({"type": "GaussianBlur", "sigma": 2.0, "kernel": kernel})(photo, rng())
    assert set(result.params) >= {"sigma", "ratio", "angle"}
    assert result.image.mean() == pytest.approx(photo.mean(), abs=0.01)
    assert np.abs(np.diff(result.image, axis=0)).mean() < 0.7 * np.abs(np.diff(photo, axis=0)).mean()


@SETTINGS
@given(length=st.floats(3, 40), angle=st.floats(0, 180), curve=st.floats(-90, 90))
def test_motion_kernels_are_non_negative_centred_and_as_long_as_asked(length, angle, curve):
    kernel = motion_kernel(length, angle, curve)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    axis = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    assert float((kernel.sum(axis=0) * axis).sum()) == pytest.approx(0, abs=0.1)
    assert float((kernel.sum(axis=1) * axis).sum()) == pytest.approx(0, abs=0.1)
    if abs(curve) < 1:  # a uniform line has the variance length^2 / 12, the pixel adds up to 1/4 per axis
        variance = (kernel * (axis[None, :] ** 2 + axis[:, None] ** 2)).sum()
        assert variance == pytest.approx(length**2 / 12, rel=0.06, abs=0.6)


def test_motion_blur_runs_along_its_angle(photo):
    blur = build_degradation({"type": "MotionBlur", "length": 15, "angle": 0, "curve": 0})(photo, rng()).image
    across, along = np.abs(np.diff(blur, axis=0)).mean(), np.abs(np.diff(blur, axis=1)).mean()
    assert along < 0.6 * across  # 0 degrees is horizontal


def test_disc_kernel_is_a_disc():
    kernel = disc_kernel(4.0)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    area = (kernel / kernel.max()).sum()
    assert area == pytest.approx(np.pi * 4**2, rel=0.03)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-7)
    np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-7)


# --- rain


@pytest.mark.parametrize("preset", sorted(RAIN_PRESETS))
def test_rain_presets_stay_in_their_published_ranges(preset):
    ranges = RAIN_PRESETS[preset]
    rain = build_degradation({"type": "Rain", "preset": preset})
    draws = [rain.parameters(rng(seed), (64, 64)) for seed in range(150)]
    for name in ("amount", "length", "angle"):
        values = [params[name] for params in draws]
        low, high = ranges[name]
        assert low <= min(values) <= max(values) <= high
        assert max(values) - min(values) > 0.8 * (high - low)
    assert {params["width"] for params in draws} == set(ranges["width"])
    assert min(params["beta"] for params in draws) >= 0.6
    if preset == "medium":
        assert np.mean([params["width"] == 5 for params in draws]) == pytest.approx(0.5, abs=0.12)


@SETTINGS
@given(seed=st.integers(0, 2**31), preset=st.sampled_from(sorted(RAIN_PRESETS)))
def test_rain_is_its_layer_added_and_the_mask_is_where_it_fell(seed, preset):
    image = np.random.default_rng(seed).random((48, 56, 3), dtype=np.float32) * 0.5
    result = build_degradation({"type": "Rain", "preset": preset})(image, rng(seed))
    layer = result.layers["rain"]
    np.testing.assert_allclose(result.image, np.minimum(image + layer[:, :, None], 1), atol=1e-6)
    mask = rain_mask(layer)
    np.testing.assert_array_equal(mask, layer > 10 / 255)
    changed = np.abs(result.image - image).max(axis=2) > 10 / 255 + 1e-6
    np.testing.assert_array_equal(mask & (result.image < 1).all(axis=2), changed & (result.image < 1).all(axis=2))


def test_single_ranges_override_the_preset():
    rain = build_degradation({"type": "Rain", "preset": "small", "angle": 45, "width": [9], "beta": 0.5})
    params = rain.parameters(rng(), (64, 64))
    assert (params["angle"], params["width"], params["beta"]) == (45, 9, 0.5)
    assert 0.002 <= params["amount"] <= 0.004


def test_masks_cover_what_the_study_measured():
    """Shares of pixels above 10 of 255 at 256 x 256 (papers/deraining.md section 2): .20, .62, .92."""
    black = np.zeros((256, 256, 3), dtype=np.float32)
    for preset, share in (("small", 0.20), ("medium", 0.62), ("large", 0.92)):
        rain = build_degradation({"type": "Rain", "preset": preset})
        covers = [rain_mask(rain(black, rng(seed)).layers["rain"]).mean() for seed in range(12)]
        assert np.mean(covers) == pytest.approx(share, abs=0.05)


def test_streaks_point_where_the_angle_says():
    upright = streak_kernel(31, 1, 0.0)
    assert upright[:, 13:18].sum() > 0.95 * upright.sum()
    counter_clockwise = streak_kernel(31, 1, 30.0)  # the top leans to the left
    top = counter_clockwise[:10].sum(axis=0)
    assert (top * np.arange(31)).sum() / top.sum() < 13
    assert streak_kernel(31, 1, 0.0, shrink=True).sum() < upright.sum()


# --- haze, low light


@SETTINGS
@given(beta=st.floats(0.1, 4), airlight=st.floats(0.3, 1), seed=st.integers(0, 2**31))
def test_haze_follows_its_equation(beta, airlight, seed):
    draw = np.random.default_rng(seed)
    image, depth = draw.random((20, 31, 3), dtype=np.float32), draw.random((20, 31), dtype=np.float32)
    result = build_degradation({"type": "Haze", "beta": beta, "airlight": airlight})(image, rng(seed), depth=depth)
    transmission = np.exp(-beta * depth.astype(np.float64))[:, :, None]
    expected = image * transmission + airlight * (1 - transmission)
    np.testing.assert_allclose(result.image, expected, atol=1e-5)
    np.testing.assert_allclose(result.layers["transmission"], transmission[:, :, 0], atol=1e-5)


def test_synthetic_depth_is_smooth_and_far_at_the_top():
    depth = smooth_depth((90, 120), rng())
    assert depth.min() == 0
    assert depth.max() == pytest.approx(1)
    assert depth[:10].mean() > depth[-10:].mean() + 0.3
    assert np.abs(np.diff(depth, axis=1)).max() < 0.05


def test_haze_depth_options(photo):
    depth = np.ones(photo.shape[:2], dtype=np.float32)
    capped = build_degradation({"type": "Haze", "beta": 1.0, "farthest": 0.7})(photo, rng(), depth=depth)
    np.testing.assert_allclose(capped.layers["transmission"], np.exp(-0.7), rtol=1e-5)
    step = np.zeros_like(depth)
    step[:, 64:] = 1
    smooth = build_degradation({"type": "Haze", "beta": 1.0, "smooth": 22})(photo, rng(), depth=step)
    assert np.abs(np.diff(smooth.layers["transmission"], axis=1)).max() < 0.1
    with pytest.raises(DataError, match="both need the same height"):
        build_degradation("haze")(photo, rng(), depth=depth[:5])


def test_low_light_without_noise_is_its_formula(photo):
    options = {"type": "LowLight", "gamma": 2.0, "brightness": 0.5, "noise": 0.0}
    np.testing.assert_allclose(build_degradation(options)(photo, rng()).image, 0.5 * photo**2, atol=1e-6)
    retinex = build_degradation({**options, "model": "retinex"})(photo, rng()).image
    assert retinex.mean() < 0.8 * photo.mean()
    bright = photo.min(axis=2) > 0.2
    hue = photo[bright] / photo[bright].max(axis=1, keepdims=True)
    hue_after = retinex[bright] / retinex[bright].max(axis=1, keepdims=True)
    np.testing.assert_allclose(hue_after, hue, atol=1e-3)  # only the light changes, not the colour


# --- snow, JPEG, bits, mosaic, strokes, drops


def test_snow_is_its_mask_over_the_image(photo):
    result = build_degradation("snow")(photo, rng())
    mask = result.layers["snow"][:, :, None]
    np.testing.assert_allclose(result.image, photo * (1 - mask) + mask, atol=1e-6)
    sparse = build_degradation({"type": "Snow", "density": 2, "radius": 3, "fall": 0})
    dense = build_degradation({"type": "Snow", "density": 8, "radius": 3, "fall": 0})
    few, many = (item(photo, rng()).layers["snow"] for item in (sparse, dense))
    assert (many[few > 0.3] > 0.1).all()  # the same flakes and some more
    assert many.sum() > 2 * few.sum()


@SETTINGS
@given(quality=st.integers(1, 100), seed=st.integers(0, 2**31))
def test_jpeg_equals_opencv(quality, seed):
    values = np.random.default_rng(seed).integers(0, 256, (40, 33, 3), dtype=np.uint8)
    image = values.astype(np.float32) / np.float32(255)
    ours = build_degradation({"type": "JPEG", "quality": quality})(image, rng()).image
    _, encoded = cv2.imencode(".jpg", values[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[:, :, ::-1]
    np.testing.assert_array_equal(np.rint(ours * 255).astype(np.uint8), expected)


def test_jpeg_draws_whole_qualities_from_range_and_list(photo):
    ranged = build_degradation({"type": "JPEG", "quality": [10, 12]})
    assert {ranged.parameters(rng(seed), (8, 8))["quality"] for seed in range(60)} == {10, 11, 12}
    listed = build_degradation({"type": "JPEG", "qualities": [50, 10, 30]})
    assert {listed.parameters(rng(seed), (8, 8))["quality"] for seed in range(60)} == {10, 30, 50}
    assert listed.parameters(rng(), (8, 8), 1.0)["quality"] == 10


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_depth_drops_the_lower_bits(bits):
    values = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    out = build_degradation({"type": "BitDepth", "bits": bits})(values.astype(np.float32) / 255, rng()).image
    np.testing.assert_allclose(out, (values >> (8 - bits)) / (2**bits - 1), atol=1e-6)
    if bits == 4:
        np.testing.assert_allclose(out * 255, values // 16 * 17, atol=1e-4)


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
@pytest.mark.parametrize("method", ["edge_aware", "bilinear"])
@pytest.mark.parametrize("size", [(32, 32), (31, 45)])
def test_mosaic_keeps_colours_in_order(pattern, method, size):
    mosaic = build_degradation({"type": "Mosaic", "pattern": pattern, "method": method})
    colours = np.broadcast_to(np.float32([200, 120, 40]) / np.float32(255), (*size, 3)).copy()
    np.testing.assert_allclose(mosaic(colours, rng()).image, colours, atol=2 / 255)
    ramp = np.linspace(0.1, 0.9, size[1], dtype=np.float32)
    grey = np.broadcast_to(ramp[None, :, None], (*size, 3)).copy()
    out = mosaic(grey, rng()).image
    np.testing.assert_allclose(out, grey, atol=0.03)  # a grey ramp stays a grey ramp
    assert (np.diff(out.mean(axis=(0, 2))) > 0).all()


def test_bayer_pattern_takes_one_colour_per_pixel():
    image = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
    np.testing.assert_array_equal(bayer_mosaic(image), [[0, 4, 6, 10], [13, 17, 19, 23]])
    raw = build_degradation({"type": "Mosaic", "method": "raw"})(image / 24, rng()).image
    np.testing.assert_allclose(raw.sum(axis=2) * 24, bayer_mosaic(image), atol=1e-5)
    assert ((raw > 0).sum(axis=2) <= 1).all()


def test_mosaic_of_a_photograph_shows_at_edges_only(photo):
    out = build_degradation("mosaic")(photo, rng()).image
    assert 0.001 < np.abs(out - photo).mean() < 0.03


def test_strokes_are_as_published(photo):
    strokes = build_degradation("inpainting")
    inner = np.clip(photo, 0.01, 0.99)
    results = [strokes(inner, rng(seed)) for seed in range(30)]
    assert {result.params["colour"] for result in results} == {"white", "black"}
    assert {result.params["count"] for result in results} <= set(range(5, 11))
    assert {result.params["thickness"] for result in results} <= set(range(5, 11))
    for result in results:
        stroke = result.layers["stroke"] > 0
        assert (result.image[stroke] == (1.0 if result.params["colour"] == "white" else 0.0)).all()
        np.testing.assert_array_equal(result.image[~stroke], inner[~stroke])


def test_raindrops_change_only_what_they_cover(photo):
    result = build_degradation("raindrop")(photo, rng(1))
    covered = result.layers["raindrop"] > 1e-4
    assert 0.01 < covered.mean() < 0.6
    np.testing.assert_allclose(result.image[~covered], photo[~covered], atol=1e-3)
    assert np.abs(result.image - photo)[covered].mean() > 0.03


# --- compositions


def test_a_sequence_is_its_steps_one_after_the_other(photo):
    steps = [
        {"type": "GaussianBlur", "sigma": 1.5},
        {"type": "GaussianNoise", "sigma": 20},
        {"type": "JPEG", "quality": 30},
    ]
    result = build_degradation({"type": "Sequence", "steps": steps})(photo, rng())
    image = photo
    for step, params in zip(steps, result.params["steps"]):
        image = build_degradation(step).rebuild(image, params).image
    np.testing.assert_array_equal(result.image, image)


def test_random_choice_follows_its_weights(photo):
    choice = build_degradation({"type": "RandomChoice", "choices": [{"type": "Snow", "weight": 3}, "Clean"]})
    names = [choice.parameters(rng(seed), (8, 8))["chosen"]["type"] for seed in range(300)]
    assert names.count("Snow") == pytest.approx(225, abs=30)


def test_cdd_mixes_apply_low_light_then_rain_then_haze(photo):
    mix = build_degradation({"type": "CDD", "mix": "low_haze_rain"})
    result = mix(photo, rng(), depth=np.ones(photo.shape[:2], dtype=np.float32))
    assert [step["type"] for step in result.params["steps"]] == ["LowLight", "Rain", "Haze"]
    low, _, haze = result.params["steps"]
    assert 2 <= low["gamma"] <= 3
    assert 0.03 <= low["noise"] <= 0.08
    assert 1 <= haze["beta"] <= 2
    assert 0.6 <= haze["airlight"] <= 0.9
    assert set(result.layers) >= {"rain", "transmission"}
    np.testing.assert_allclose(result.layers["transmission"], np.exp(-0.7 * haze["beta"]), rtol=1e-5)
    any_mix = build_degradation("cdd")
    assert len({any_mix.parameters(rng(seed), (8, 8))["mix"] for seed in range(150)}) == 11
