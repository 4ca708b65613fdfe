"""The function-denoising toy: does training on more, or more complex, functions weaken removal of unseen degradations?

arXiv 2502.12600 explains why derainers fail on unseen rain by what is easier to learn, the clean signal or the
degradation, and shows it on one-dimensional functions. Its settings are not public; those here follow its description.

A clean function is f(x) = sum_{k=1..K} a_k sin(2 pi k x + phi_k) with a_k ~ N(0, 1) / k, a degradation g a burst of
high frequency, and a small 1-D residual network learns f from y = f + g. It is then tested on new functions with
unseen degradations. Its error is split in two, as E_R and E_B do for rain: ``removal``, the share of the degradation
that is removed, and ``background_error``, the error orthogonal to the degradation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from basicsr_plugins.core.errors import OptionError, one_of
from basicsr_plugins.core.options import non_negative, option, positive
from basicsr_plugins.studies.tables import average

__all__ = [
    "DEGRADATIONS",
    "SEEN",
    "UNSEEN",
    "FunctionResNet",
    "ToySettings",
    "background_error",
    "check_settings",
    "clean_functions",
    "degradations",
    "differences",
    "removal",
    "run_grid",
    "run_toy",
    "summary",
    "train_network",
]


@dataclass(frozen=True)
class ToySettings:
    """One training run of the toy."""

    terms: int = option(3, "number of sines K in a clean function: its complexity", check=positive)
    functions: int = option(64, "number N of distinct clean functions in training", check=positive)
    train_on: str = option("burst", "degradation seen in training")
    steps: int = option(800, "optimisation steps, the same for every N and K", check=positive)
    batch: int = option(8, "functions in one step", check=positive)
    points: int = option(256, "samples of a function on [0, 1)", check=positive)
    width: int = option(32, "channels of the network", check=positive)
    blocks: int = option(4, "residual blocks of the network", check=positive)
    rate: float = option(1e-3, "Adam's learning rate", check=positive)
    test_functions: int = option(256, "functions in each test", check=positive)
    seed: int = option(0, "seed of functions, degradations and weights", check=non_negative)


def clean_functions(rng: np.random.Generator, count: int, terms: int, points: int) -> np.ndarray:
    """Return ``count`` clean functions of ``terms`` sines, float32 (count, points)."""
    x = np.arange(points) / points
    order = np.arange(1, terms + 1)
    amplitude = rng.standard_normal((count, terms, 1)) / order[:, None]
    phase = rng.uniform(0, 2 * np.pi, (count, terms, 1))
    return (amplitude * np.sin(2 * np.pi * order[:, None] * x + phase)).sum(1).astype(np.float32)


def degradations(rng: np.random.Generator, count: int, kind: str, points: int) -> np.ndarray:
    """Return ``count`` degradations of one kind, float32 (count, points).

    Raises:
        OptionError: ``kind`` is none of ``DEGRADATIONS``.
    """
    if kind not in DEGRADATIONS:
        raise OptionError(one_of(kind, DEGRADATIONS, "degradation of the toy"))
    return DEGRADATIONS[kind](rng, count, points).astype(np.float32)


def _bursts(rng: np.random.Generator, count: int, points: int, low: float, high: float, most: int) -> np.ndarray:
    """Between one and ``most`` windowed cosines of ``low`` to ``high`` periods."""
    x = np.arange(points) / points
    shape = (count, most, 1)
    frequency, phase = rng.uniform(low, high, shape), rng.uniform(0, 2 * np.pi, shape)
    centre, spread = rng.uniform(0.1, 0.9, shape), rng.uniform(0.05, 0.2, shape)
    used = np.arange(most)[:, None] < rng.integers(1, most, shape[:1], endpoint=True)[:, None, None]
    strength = rng.uniform(0.3, 1.0, shape) * used
    window = np.exp(-0.5 * ((x - centre) / spread) ** 2)
    return (strength * window * np.cos(2 * np.pi * frequency * x + phase)).sum(1)


def _noise(rng: np.random.Generator, count: int, points: int) -> np.ndarray:
    return rng.uniform(0.1, 0.4, (count, 1)) * rng.standard_normal((count, points))


def _pulses(rng: np.random.Generator, count: int, points: int) -> np.ndarray:
    """One to five rectangles of two to six samples, of either sign."""
    index = np.arange(points)
    shape = (count, 5, 1)
    start, length = rng.integers(0, points, shape), rng.integers(2, 6, shape, endpoint=True)
    used = np.arange(5)[:, None] < rng.integers(1, 5, (count,), endpoint=True)[:, None, None]
    height = rng.uniform(0.3, 1.0, shape) * rng.choice([-1.0, 1.0], shape) * used
    return (height * ((index >= start) & (index < start + length))).sum(1)


#: Every degradation of the toy. "burst" has one fixed frequency, "wide" one to five between 30 and 60.
DEGRADATIONS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "burst": lambda rng, count, points: _bursts(rng, count, points, 40, 40, 1),
    "wide": lambda rng, count, points: _bursts(rng, count, points, 30, 60, 5),
    "other_burst": lambda rng, count, points: _bursts(rng, count, points, 70, 100, 1),
    "noise": _noise,
    "pulses": _pulses,
}
SEEN = ("burst", "wide")
UNSEEN = ("other_burst", "noise", "pulses")


class FunctionResNet(nn.Module):
    """A convolution, ``blocks`` residual blocks, a convolution, and the input added to the output.

    The functions have period 1, so the convolutions wrap around.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 3, padding=1, padding_mode="circular")
        self.body = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(width, width, 3, padding=1, padding_mode="circular") for _ in range(2))
            for _ in range(blocks)
        )
        self.last = nn.Conv1d(width, 1, 3, padding=1, padding_mode="circular")

    def forward(self, functions: torch.Tensor) -> torch.Tensor:
        """(n, points) -> (n, points)."""
        x = self.first(functions.unsqueeze(1))
        for block in self.body:
            first, second = block.children()
            x = x + second(F.relu(first(x)))
        return functions + self.last(x).squeeze(1)


def train_network(settings: ToySettings) -> FunctionResNet:
    """Train one network: ``functions`` fixed clean functions, a fresh degradation at every step, mean squared error."""
    drawn, batches = np.random.default_rng([settings.seed, 0]), np.random.default_rng([settings.seed, 1])
    functions = clean_functions(drawn, settings.functions, settings.terms, settings.points)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = FunctionResNet(settings.width, settings.blocks)
    optimizer = torch.optim.Adam(network.parameters(), settings.rate)
    for step in range(settings.steps):
        for group in optimizer.param_groups:  # constant, then a linear fall to zero over the second half
            group["lr"] = settings.rate * min(1.0, 2 * (1 - step / settings.steps))
        clean = functions[batches.integers(0, settings.functions, settings.batch)]
        degraded = clean + degradations(batches, settings.batch, settings.train_on, settings.points)
        loss = F.mse_loss(network(torch.from_numpy(degraded)), torch.from_numpy(clean))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def removal(degraded: np.ndarray, output: np.ndarray, degradation: np.ndarray) -> np.ndarray:
    """Return <y - out, g> / <g, g> of each function: 1 if the degradation is gone, 0 if it is untouched.

    Args:
        degraded: y, (count, points).
        output: The network's output, (count, points).
        degradation: g, (count, points).
    """
    return ((degraded - output) * degradation).sum(1) / (degradation**2).sum(1)


def background_error(output: np.ndarray, clean: np.ndarray, degradation: np.ndarray) -> np.ndarray:
    """Return the root mean square of the part of ``output - clean`` that is orthogonal to the degradation."""
    error = output - clean
    share = (error * degradation).sum(1, keepdims=True) / (degradation**2).sum(1, keepdims=True)
    return np.sqrt(((error - share * degradation) ** 2).mean(1))


def check_settings(settings: ToySettings) -> None:
    """Raise OptionError if ``train_on`` is no degradation to train on."""
    if settings.train_on not in SEEN:
        raise OptionError(one_of(settings.train_on, SEEN, "degradation to train on"))


def run_toy(settings: ToySettings) -> list[dict[str, Any]]:
    """Train one network and test it on new functions with the seen and every unseen degradation.

    Returns:
        One row a degradation: the settings that differ between runs, ``test_on``, ``removal`` (median over the test
        functions) and ``background_error`` (their mean).

    Raises:
        OptionError: ``train_on`` is no degradation.
    """
    check_settings(settings)
    network = train_network(settings)
    rows = []
    for kind in (settings.train_on, *UNSEEN):
        rng = np.random.default_rng([settings.seed, 2])  # the same functions for every degradation
        clean = clean_functions(rng, settings.test_functions, settings.terms, settings.points)
        degradation = degradations(rng, settings.test_functions, kind, settings.points)
        with torch.no_grad():
            output = network(torch.from_numpy(clean + degradation)).numpy()
        found = removal(clean + degradation, output, degradation)
        rows.append(
            {
                **{name: getattr(settings, name) for name in ("terms", "functions", "seed", "train_on")},
                "test_on": kind,
                "removal": float(np.median(found)),
                "background_error": float(background_error(output, clean, degradation).mean()),
            }
        )
    return rows


def run_grid(
    terms: Sequence[int],
    functions: Sequence[int],
    seeds: Iterable[int],
    settings: ToySettings,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> list[dict[str, Any]]:
    """Run every combination of complexity, number and seed.

    Args:
        terms: Values of K.
        functions: Values of N.
        seeds: Seeds.
        settings: Everything else.
        progress: Wraps the list of runs, for a progress bar.
    """
    grid = [(k, n, seed) for k in terms for n in functions for seed in seeds]
    rows = []
    for k, n, seed in progress(grid):
        rows += run_toy(replace(settings, terms=k, functions=n, seed=seed))
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a combination of K, N and test degradation, averaged over the seeds."""
    return average(rows, ("train_on", "terms", "functions", "test_on"), ("removal", "background_error"))


def differences(rows: Sequence[dict[str, Any]], axis: str, low: int, high: int, test_on: Sequence[str]) -> np.ndarray:
    """Return how much removal falls from ``low`` to ``high`` along an axis, one number a seed.

    Args:
        rows: Rows of ``run_grid``.
        axis: ``terms`` or ``functions``; the other one is averaged over.
        low: The smaller value.
        high: The larger value.
        test_on: Degradations that are averaged over.
    """

    def mean(seed: int, value: int) -> float:
        chosen = [r for r in rows if r["seed"] == seed and r[axis] == value and r["test_on"] in test_on]
        return float(np.mean([row["removal"] for row in chosen]))

    return np.array([mean(seed, low) - mean(seed, high) for seed in sorted({row["seed"] for row in rows})])
