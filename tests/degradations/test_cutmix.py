"""Degradation CutMix: what is where, and what the map says."""

import numpy as np

from basicsr_plugins.degradations import build_degradation
from basicsr_plugins.degradations.cutmix import CutMixOptions, cut_rectangle, degradation_cutmix


def entries():
    return [
        (build_degradation({"type": "GaussianNoise", "sigma": 50}), 3),
        (build_degradation({"type": "Rain", "preset": "large"}), 1),
        (build_degradation({"type": "LowLight"}), 4),
    ]


def test_each_pixel_comes_from_the_degradation_that_the_map_names():
    image = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32)
    for seed in range(10):
        result, labels = degradation_cutmix(image, entries()[:2], np.random.default_rng(seed), CutMixOptions())
        ground = entries()[0][0].rebuild(image, result.params["ground"]).image
        patch = entries()[1][0].rebuild(image, result.params["regions"][0])
        assert set(np.unique(labels)) <= {1, 3}
        np.testing.assert_array_equal(result.image[labels == 3], ground[labels == 3])
        np.testing.assert_array_equal(result.image[labels == 1], patch.image[labels == 1])
        rain = result.layers["rain"]
        np.testing.assert_array_equal(rain[labels == 1], patch.layers["rain"][labels == 1])
        assert (rain[labels == 3] == 0).all()
        top, bottom, left, right = result.params["regions"][0]["box"]
        assert (labels[top:bottom, left:right] == 1).all()
        assert (labels == 1).sum() == (bottom - top) * (right - left)


def test_layers_of_the_ground_end_at_the_region_and_stay_the_grounds_own():
    image = np.full((40, 50, 3), 0.2, dtype=np.float32)
    kept = {}

    class Remembering:
        def __init__(self, degradation):
            self.degradation = degradation

        def __call__(self, image, rng, depth=None):
            kept["ground"] = self.degradation(image, rng)
            return kept["ground"]

    rain, noise = entries()[1][0], entries()[0][0]
    drawn = np.random.default_rng(2)
    result, labels = degradation_cutmix(image, [(Remembering(rain), 1), (noise, 3)], drawn, CutMixOptions())
    ground = rain.rebuild(image, result.params["ground"]).layers["rain"]
    assert (labels == 3).any()
    np.testing.assert_array_equal(result.layers["rain"], np.where(labels == 1, ground, 0))
    np.testing.assert_array_equal(kept["ground"].layers["rain"], ground)  # a layer may be somebody's only copy


def test_alpha_shapes_the_rectangles():
    image = np.zeros((40, 50, 3), dtype=np.float32)

    def spread(alpha):
        shares = []
        for seed in range(80):
            options = CutMixOptions(alpha=alpha)
            _, labels = degradation_cutmix(image, entries()[:2], np.random.default_rng(seed), options)
            shares.append((labels == 1).mean())
        return np.std(shares)

    assert spread(30.0) < 0.7 * spread(0.3)  # all near one half of the image, against nearly nothing or nearly all


def test_several_regions_and_int64_map():
    image = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32)
    _, labels = degradation_cutmix(image, entries(), np.random.default_rng(2), CutMixOptions(regions=2))
    assert labels.dtype == np.int64
    assert labels.shape == (40, 50)


def test_rectangles_have_the_area_of_the_beta_law():
    shares = []
    for seed in range(400):
        rows, cols = cut_rectangle((1000, 1000), np.random.default_rng(seed), alpha=1.0)
        shares.append((rows.stop - rows.start) * (cols.stop - cols.start) / 1e6)
    # mean of 1 - lambda is 1/2 before clipping at the border; the clipped mean of the uniform centre law is near 0.32
    assert 0.25 < np.mean(shares) < 0.4
    assert max(shares) <= 1
