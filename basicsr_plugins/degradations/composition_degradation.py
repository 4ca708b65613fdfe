"""Degradations made of degradations: one after the other, one of several, none, and the mixes of CDD-11."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

import numpy as np

from basicsr_plugins.core.errors import OptionError, one_of
from basicsr_plugins.core.options import option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.degradations.base import Degradation, Degraded, Range, in_order
from basicsr_plugins.degradations.build import build_degradation
from basicsr_plugins.degradations.haze_degradation import Haze
from basicsr_plugins.degradations.low_light_degradation import LowLight
from basicsr_plugins.degradations.rain_degradation import Rain
from basicsr_plugins.degradations.snow_degradation import Snow

__all__ = ["CDD", "CDD_MIXES", "Clean", "RandomChoice", "Sequence"]

#: The eleven degradations of CDD-11, in the order of their labels.
CDD_MIXES = (
    "low", "haze", "rain", "snow", "low_haze", "low_rain", "low_snow", "haze_rain", "haze_snow", "low_haze_rain",
    "low_haze_snow",
)  # fmt: skip


@provides("degradation")
@dataclass
class Clean(Degradation):
    """No degradation: the class of clean images, for classifiers and segmentation heads that have one."""

    short = "clean"

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {}

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        return Degraded(image.copy(), dict(params))


@dataclass
class Composition(Degradation):
    """Base of degradations made of steps: parameters of every step, layers of all of them."""

    uses_depth = True

    def members(self) -> list[Degradation]:
        """Return the steps, in order."""
        return []

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        return {"steps": [step.parameters(rng, size, severity) for step in self.members()]}

    def apply(self, image: np.ndarray, params: Mapping[str, Any], depth: np.ndarray | None = None) -> Degraded:
        layers: dict[str, np.ndarray] = {}
        for step, step_params in zip(self.members(), params["steps"]):
            result = step.rebuild(image, step_params, depth)
            image = result.image
            layers.update(result.layers)
        return Degraded(image, dict(params), layers)


@provides("degradation")
@dataclass
class Sequence(Composition):
    """Degradations one after the other; a severity goes to each of them.

    Args:
        steps: Entries as in ``degradations``.

    Example:
        ``{type: Sequence, steps: [GaussianBlur, {type: GaussianNoise, sigma: [5, 25]}, {type: JPEG, quality: 40}]}``
    """

    short = "sequence"
    example: ClassVar[dict[str, Any]] = {"steps": ["GaussianBlur", "GaussianNoise", "JPEG"]}

    steps: Optional[list[Any]] = option(None, "degradations, first to last")

    @classmethod
    def from_options(cls, opt: Mapping[str, Any], where: str) -> Sequence:
        sequence = super().from_options(opt, where)
        sequence._built = _build_all(sequence.steps, f"{where}.steps")
        return sequence

    def members(self) -> list[Degradation]:
        return self._built

    @functools.cached_property
    def _built(self) -> list[Degradation]:
        return _build_all(self.steps, "steps")


@provides("degradation")
@dataclass
class RandomChoice(Degradation):
    """One of several degradations, drawn by weight.

    Args:
        choices: Entries as in ``degradations``, each with an optional ``weight``.

    Example:
        ``{type: RandomChoice, choices: [{type: GaussianBlur, weight: 3}, MotionBlur]}``
    """

    short = "random_choice"
    example: ClassVar[dict[str, Any]] = {"choices": ["MotionBlur", "GaussianNoise"]}
    uses_depth = True

    choices: Optional[list[Any]] = option(None, "degradations to choose from")

    @classmethod
    def from_options(cls, opt: Mapping[str, Any], where: str) -> RandomChoice:
        choice = super().from_options(opt, where)
        choice._weighted = choice._weigh(f"{where}.choices")
        return choice

    @functools.cached_property
    def _weighted(self) -> tuple[list[Degradation], np.ndarray]:
        return self._weigh("choices")

    def _weigh(self, where: str) -> tuple[list[Degradation], np.ndarray]:
        """Return the degradations and the cumulative sum of their weights, which ends at 1."""
        entries = [dict(item) if isinstance(item, Mapping) else {"type": item} for item in self.choices or []]
        weights = [entry.pop("weight", 1.0) for entry in entries]
        if any(
            isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight < 0 for weight in weights
        ) or (weights and not sum(weights)):
            raise OptionError(f"{where}: weights must be 0 or more and not all 0, got {weights!r}.")
        members = _build_all(entries, where)
        return members, np.cumsum(np.array(weights, dtype=np.float64) / sum(weights))

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        members, cumulative = self._weighted
        chosen = min(int(np.searchsorted(cumulative, rng.random(), side="right")), len(members) - 1)
        return {"choice": chosen, "chosen": members[chosen].parameters(rng, size, severity)}

    def apply(self, image: np.ndarray, params: Mapping[str, Any], depth: np.ndarray | None = None) -> Degraded:
        members, _ = self._weighted
        result = members[int(params["choice"])].rebuild(image, params["chosen"], depth)
        return Degraded(result.image, dict(params), result.layers)


@provides("degradation")
@dataclass
class CDD(Composition):
    """The degradations of CDD-11 and their mixes (OneRestore), in its order: low light, then rain or snow, then haze.

    Low light by illumination (exponent 2 to 3, noise .03 to .08), haze with coefficient 1 to 2 over a smoothed depth
    cut off at .7 and airlight .6 to .9. The rain and snow masks, files in the original, come from our generators.

    Args:
        mix: One of low, haze, rain, snow, low_haze, low_rain, low_snow, haze_rain, haze_snow, low_haze_rain,
            low_haze_snow. Left out, one of the eleven is drawn.
        rain: Preset of the rain.
    """

    short = "cdd"
    example: ClassVar[dict[str, Any]] = {"mix": "low_haze_rain"}

    mix: Optional[str] = option(None, "name of the mix; left out, any")
    rain: str = option("medium", "preset of the rain")
    beta: Range = option(
        (1.0, 2.0), "scattering coefficient of the haze", source="OneRestore", check=in_order(0.0, 20.0)
    )
    airlight: Range = option((0.6, 0.9), "colour of the haze", source="OneRestore", check=in_order(0.0, 1.0))
    gamma: Range = option((2.0, 3.0), "exponent of the illumination", source="OneRestore", check=in_order(1.0, 10.0))
    noise: Range = option(
        (0.03, 0.08), "noise of the low light, [0, 1] scale", source="OneRestore", check=in_order(0.0, 1.0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mix is not None and self.mix not in CDD_MIXES:
            raise OptionError(f"mix: {one_of(self.mix, CDD_MIXES, 'mix')}")
        self._parts: dict[str, Degradation] = {
            "low": LowLight(model="retinex", gamma=self.gamma, noise=self.noise),
            "rain": Rain.from_options({"preset": self.rain}, "rain"),
            "snow": Snow(),
            "haze": Haze(beta=self.beta, airlight=self.airlight, smooth=22, farthest=0.7),
        }

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        mix = self.mix or CDD_MIXES[int(rng.integers(len(CDD_MIXES)))]
        steps = [self._parts[name].parameters(rng, size, severity) for name in self._order(mix)]
        return {"mix": mix, "steps": steps}

    def apply(self, image: np.ndarray, params: Mapping[str, Any], depth: np.ndarray | None = None) -> Degraded:
        layers: dict[str, np.ndarray] = {}
        for name, step_params in zip(self._order(params["mix"]), params["steps"]):
            result = self._parts[name].rebuild(image, step_params, depth)
            image = result.image
            layers.update(result.layers)
        return Degraded(image, dict(params), layers)

    def _order(self, mix: str) -> list[str]:
        return [name for name in self._parts if name in mix.split("_")]


def _build_all(entries: Optional[list[Any]], where: str) -> list[Degradation]:
    if not entries:
        raise OptionError(f"{where}: expected at least one degradation.")
    return [build_degradation(entry, f"{where}[{position}]") for position, entry in enumerate(entries)]
