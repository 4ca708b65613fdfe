"""What every degradation is: parameters drawn from a generator, then a pure function of image and parameters."""

from __future__ import annotations

import dataclasses
import math
import numbers
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Optional, TypeVar, Union

import numpy as np

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.options import check_value, option, parse

__all__ = [
    "Degradation",
    "Degraded",
    "Range",
    "check_image",
    "draw_seed",
    "field_rng",
    "in_order",
    "pick",
    "pick_int",
    "severity_range",
    "span",
]

Made = TypeVar("Made", bound="Degradation")

#: A range in an option file: ``[low, high]``, or one number that is always used.
Range = Union[float, tuple[float, float]]


@dataclass
class Degraded:
    """The result of a degradation.

    Attributes:
        image: The degraded image, float32 RGB ``(h, w, 3)``.
        params: The parameters drawn, plain numbers and text; ``apply(clean, params)`` makes the same image again.
        layers: What was laid over the image, by name, float32 ``(h, w)`` or ``(h, w, 3)``: ``rain`` (already scaled
            as it was added), ``snow``, ``transmission``, ``raindrop``, ``stroke`` ...
    """

    image: np.ndarray
    params: dict[str, Any]
    layers: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    """Whether no number within a value is infinite, undefined, or too large to be a float."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    try:
        return not isinstance(value, (int, float)) or math.isfinite(value)
    except OverflowError:
        return False


def span(value: Range) -> tuple[float, float]:
    """Return a range option as ``(low, high)``; one number is both ends."""
    if isinstance(value, (int, float)):
        return float(value), float(value)
    return float(value[0]), float(value[1])


def in_order(low: float = -np.inf, high: float = np.inf, what: str = "") -> Any:
    """Return a check for a range option: ordered, and inside ``[low, high]``."""

    def check(value: Range) -> str | None:
        if not _is_finite(value):
            return "must be made of finite numbers"
        first, last = span(value)
        if first > last:
            return "must be [low, high] with low <= high"
        if first < low or last > high:
            return f"must lie in [{low:g}, {high:g}]{what and ' ' + what}"
        return None

    return check


def severity_range(value: Range) -> str | None:
    """Check a ``severity`` option: a number or an ordered pair in [0, 1]."""
    return in_order(0.0, 1.0)(value)


def pick(rng: np.random.Generator, value: Range, severity: float | None = None, hard: str = "high") -> float:
    """Draw one number from a range, or take the one that belongs to a severity.

    Args:
        rng: One number is drawn from it in either case, so that a severity does not shift the later draws.
        value: The range.
        severity: None draws uniformly; else the point at that fraction of the way to the hard end.
        hard: Which end is the worse image, ``high`` or ``low``.
    """
    low, high = span(value)
    fraction = rng.random()
    if severity is not None:
        fraction = severity if hard == "high" else 1.0 - severity
    return float(low + fraction * (high - low))


def pick_int(rng: np.random.Generator, value: Range, severity: float | None = None, hard: str = "high") -> int:
    """Draw one whole number from a range, both ends included; see ``pick``."""
    low, high = round(span(value)[0]), round(span(value)[1])
    if severity is not None:
        return round(pick(rng, (low, high), severity, hard))
    return min(high, low + int(rng.random() * (high - low + 1)))


def field_rng(params: Mapping[str, Any], name: str = "field_seed") -> np.random.Generator:
    """Return the generator of a random field (noise, streaks) whose seed is among the parameters."""
    return np.random.Generator(np.random.SFC64(int(params[name])))


def draw_seed(rng: np.random.Generator) -> int:
    """Draw the seed of a random field; below 2**53, so that it survives any JSON reader."""
    return int(rng.integers(1 << 53))


@dataclass
class Degradation:
    """Base of all degradations.

    A subclass is a dataclass of ranges with two methods: ``draw`` turns a generator into parameters, ``apply`` turns an
    image and parameters into the result and draws nothing. So a manifest of parameters rebuilds an image exactly.

    Severity s in (0, 1] takes, from every range that makes an image worse, the point at that fraction of the way
    (0+ is the mild end, 1 the hard end); positions, angles and noise fields are still drawn. Severity 0 is the clean
    image. Without a severity every range is drawn uniformly.

    Example:
        >>> from basicsr_plugins.degradations import build_degradation
        >>> rain = build_degradation({"type": "Rain", "preset": "medium"})
        >>> result = rain(np.zeros((32, 32, 3), np.float32), np.random.default_rng(1), severity=0.5)
        >>> result.image.shape, result.layers["rain"].shape
        ((32, 32, 3), (32, 32))
    """

    #: Name on the command line and in file names.
    short = ""
    #: Options besides the defaults with which it can be shown.
    example: ClassVar[dict[str, Any]] = {}
    #: Whether ``apply`` takes a depth map.
    uses_depth = False

    severity: Optional[Range] = option(
        None, "fixed severity or range of severities in [0, 1]; left out, every range is drawn", check=severity_range
    )

    def __post_init__(self) -> None:
        """Check every option, whether it comes from an option file or from Python; lists become tuples where meant.

        Raises:
            OptionError: A wrong type, a number that is not finite, a value outside its limits.
        """
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _is_finite(value):
                raise OptionError(f"{field.name}: must be made of finite numbers, got {value!r}.")
            setattr(self, field.name, check_value(value, hints[field.name], field.name, field.metadata.get("check")))

    def __call__(
        self,
        image: np.ndarray,
        rng: np.random.Generator,
        severity: float | None = None,
        depth: np.ndarray | None = None,
    ) -> Degraded:
        """Degrade one image.

        Args:
            image: float32 RGB ``(h, w, 3)`` in [0, 1]; left untouched.
            rng: Where every parameter comes from.
            severity: In [0, 1]; overrides the option of the same name.
            depth: float32 ``(h, w)`` in [0, 1] (1 is far), for the degradations that use one.

        Raises:
            DataError: The image has another shape or dtype.
            OptionError: The severity lies outside [0, 1].
        """
        check_image(image)
        return self.rebuild(image, self.parameters(rng, image.shape[:2], severity), depth)

    def parameters(
        self, rng: np.random.Generator, size: tuple[int, int], severity: float | None = None
    ) -> dict[str, Any]:
        """Draw everything that ``rebuild`` needs for an image of ``size`` (h, w)."""
        if severity is None and self.severity is not None:
            severity = pick(rng, self.severity)
        if severity is not None and not (_is_number(severity) and 0.0 <= severity <= 1.0):
            raise OptionError(f"severity must lie between 0 and 1, got {severity!r}.")
        params: dict[str, Any] = {"type": type(self).__name__}
        if severity is not None:
            params["severity"] = float(severity)
        return params if severity == 0 else {**params, **self.draw(rng, size, severity)}

    def rebuild(self, image: np.ndarray, params: Mapping[str, Any], depth: np.ndarray | None = None) -> Degraded:
        """Make again what ``__call__`` made, from the parameters that it returned."""
        check_image(image)
        if params.get("severity") == 0:
            return Degraded(image.copy(), dict(params))
        if self.uses_depth:
            return self.apply(image, params, depth=depth)  # type: ignore[call-arg]
        return self.apply(image, params)

    def draw(self, rng: np.random.Generator, size: tuple[int, int], severity: float | None) -> dict[str, Any]:
        """Draw the parameters for an image of ``size`` (h, w)."""
        raise TypeError(f"{type(self).__name__} must define draw() and apply().")

    def apply(self, image: np.ndarray, params: Mapping[str, Any]) -> Degraded:
        """Degrade ``image`` by ``params``; deterministic."""
        raise TypeError(f"{type(self).__name__} must define draw() and apply().")

    @classmethod
    def from_options(cls: type[Made], opt: Mapping[str, Any], where: str) -> Made:
        """Build from the options of a YAML entry (without its ``type``).

        Raises:
            OptionError: An unknown option, a wrong type, a range outside its limits.
        """
        try:
            return parse(cls, opt, where)
        except OptionError as error:
            if str(error).startswith(where):
                raise
            raise OptionError(f"{where}.{error}") from None  # raised by __post_init__, which knows no path

    def options(self) -> dict[str, Any]:
        """Return the YAML entry that builds this object again."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return {"type": type(self).__name__, **plain}


def check_image(image: np.ndarray) -> None:
    """Raise DataError unless ``image`` is float32 ``(h, w, 3)``."""
    if not isinstance(image, np.ndarray) or image.dtype != np.float32 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"a degradation takes a float32 RGB image (h, w, 3) in [0, 1], got {got}.")
