"""What a degradation draws: ranges over their whole width, the hard end for a severity, the same fields either way."""

import dataclasses

import numpy as np
import pytest

from basicsr_plugins.core.registration import provided
from basicsr_plugins.degradations import build_degradation, degradation_names
from basicsr_plugins.degradations.base import span

NAMES = sorted(degradation_names().values())
SIZE = (64, 64)
#: Options under which every parameter is drawn.
ALL_DRAWN = {"GaussianBlur": {"kernel": "generalized"}}


def make(name, **options):
    return build_degradation({"type": name, **provided("degradation")[name].example, **options})


def ranges(name):
    """(parameter, range) of every range option whose parameter has its name."""
    options = ALL_DRAWN.get(name, {})
    degradation = make(name, **options)
    drawn = degradation.parameters(np.random.default_rng(0), SIZE)
    found = {field.name: getattr(degradation, field.name) for field in dataclasses.fields(degradation)}
    found.update(getattr(degradation, "_ranges", {}))  # rain's come from its preset
    return {key: value for key, value in found.items() if key in drawn and isinstance(value, (tuple, float))}


RANGES = [(name, key, span(value)) for name in NAMES for key, value in ranges(name).items()]


def test_the_ranges_are_found():
    assert len(RANGES) >= 30
    assert {name for name, _, _ in RANGES} >= {"Haze", "Snow", "MotionBlur", "Raindrop", "GaussianBlur", "Rain"}


@pytest.mark.parametrize(("name", "key", "limits"), RANGES, ids=[f"{name}.{key}" for name, key, _ in RANGES])
def test_a_range_is_drawn_over_its_whole_width_and_a_number_is_kept(name, key, limits):
    low, high = limits

    def drawn(seed, **options):
        degradation = make(name, **ALL_DRAWN.get(name, {}), **options)
        return degradation.parameters(np.random.default_rng(seed), SIZE)[key]

    values = [drawn(seed) for seed in range(60)]
    assert low <= min(values) <= max(values) <= high
    assert max(values) - min(values) >= 0.7 * (high - low)
    third = low + (high - low) / 3
    wanted = round(third) if all(isinstance(value, int) for value in values) else third
    assert drawn(0, **{key: wanted}) == pytest.approx(wanted, abs=0.13)  # defocus rounds to quarters


#: Parameter -> its value at severity 1, from the range [low, high]; those left out do not depend on it.
HARD = {
    "BitDepth": {"bits": 4}, "CorrelatedNoise": {"sigma": 50}, "DefocusBlur": {"radius": 8},
    "GaussianBlur": {"sigma": 4}, "GaussianNoise": {"sigma": 55}, "Haze": {"beta": 2.5},
    "InpaintingStrokes": {"count": 10, "thickness": 10}, "JPEG": {"quality": 10},
    "LowLight": {"gamma": 3, "brightness": 0.4, "noise": 0.05}, "MotionBlur": {"length": 35},
    "PoissonNoise": {"peak": 20}, "Rain": {"amount": 0.01, "width": 9, "length": 55, "beta": 1},
    "Raindrop": {"count": 30, "radius": 0.09}, "SaltPepperNoise": {"density": 0.2},
    "Snow": {"density": 12, "radius": 4.5}, "SpeckleNoise": {"variance": 0.15},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HARD))
def test_severity_takes_the_hard_end_of_what_makes_an_image_worse(name):
    degradation, free = make(name), ranges(name)
    hard = [degradation.parameters(np.random.default_rng(seed), SIZE, 1.0) for seed in range(20)]
    mild = degradation.parameters(np.random.default_rng(0), SIZE, 1e-9)
    for key, value in HARD[name].items():
        assert [params[key] for params in hard] == pytest.approx([value] * 20)
        assert mild[key] == pytest.approx(1 if key == "width" else sum(span(free[key])) - value)
    for key in (set(free) & set(mild)) - set(HARD[name]):  # positions, angles and the like are drawn as ever
        low, high = span(free[key])
        assert low == high or len({params[key] for params in hard}) > 1


def test_severity_chooses_among_levels():
    noise = make("GaussianNoise", sigmas=[25, 50, 15])
    levels = [noise.parameters(np.random.default_rng(0), SIZE, severity)["sigma"] for severity in (1e-9, 0.5, 1)]
    assert levels == [15, 25, 50]


@pytest.mark.parametrize("name", ["Sequence", "RandomChoice", "CDD"])
def test_severity_reaches_the_members(name):
    params = make(name).parameters(np.random.default_rng(0), SIZE, 0.7)
    members = params["steps"] if "steps" in params else [params["chosen"]]
    assert [member["severity"] for member in members] == [0.7] * len(members)


@pytest.mark.parametrize("name", [name for name in NAMES if "field_seed" in ranges(name) or name in HARD])
def test_a_severity_does_not_shift_the_draws_that_follow(name):
    degradation = make(name)
    drawn = [degradation.parameters(np.random.default_rng(7), SIZE, severity) for severity in (None, 0.2, 0.9)]
    assert len({params.get("field_seed") for params in drawn}) == 1
    for key in ("angle", "curve", "airlight", "salt", "colour"):
        assert len({params.get(key) for params in drawn}) == 1


def test_photons_are_drawn_evenly_over_their_magnitudes():
    poisson = make("PoissonNoise", peak=[20, 2000])
    rng = np.random.default_rng(0)
    peaks = [poisson.parameters(rng, SIZE)["peak"] for _ in range(300)]
    assert np.median(peaks) == pytest.approx(200, rel=0.4)


@pytest.mark.parametrize("colour", ["white", "black"])
def test_strokes_have_the_colour_that_is_asked_for(colour):
    strokes = make("InpaintingStrokes", colour=colour)
    assert {strokes.parameters(np.random.default_rng(seed), SIZE)["colour"] for seed in range(8)} == {colour}


def test_widths_of_rain_replace_those_of_the_preset_with_their_weights():
    rain = make("Rain", preset="medium", width=[9])
    assert rain.parameters(np.random.default_rng(0), SIZE)["width"] == 9


def test_ranges_of_cdd_reach_its_parts():
    given = {"beta": 0.3, "airlight": 0.2, "gamma": 1.5, "noise": 0.01, "rain": "small"}
    low, rain, haze = make("CDD", mix="low_haze_rain", **given).parameters(np.random.default_rng(0), SIZE)["steps"]
    assert (low["gamma"], low["noise"]) == (1.5, 0.01)
    assert (haze["beta"], haze["airlight"]) == (0.3, 0.2)
    assert 25 <= rain["length"] <= 35
    assert rain["width"] in (1, 3)
