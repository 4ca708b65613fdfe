"""Load the golden cases in tests/data/golden (their README says how weights and inputs are drawn)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parents[1] / "data" / "golden"


def load_case(name):
    """Return ``(meta, expected output)`` of one case."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as case:
        return json.loads(str(case["meta"])), torch.from_numpy(case["output"])


def seeded_input(meta):
    """Return the input image of a case."""
    drawn = np.random.default_rng([meta["seed"], 7]).random(meta["input_shape"], dtype=np.float32)
    return torch.from_numpy(drawn)


def seeded_state(meta):
    """Return the state dict of a case, under the keys that its source uses."""
    return {key: torch.from_numpy(_parameter(meta, key, shape)) for key, shape in meta["parameters"]}


def parameter_shapes(network):
    """Return ``{key: shape}`` of a network's parameters."""
    return {key: list(value.shape) for key, value in network.named_parameters()}


def largest_error(output, expected):
    """Return max|out - golden| / max|golden|, which has to be at most 1e-4."""
    return ((output - expected).abs().max() / expected.abs().max()).item()


def _parameter(meta, key, shape):
    values = np.random.default_rng([meta["seed"], zlib.crc32(key.encode())]).standard_normal(tuple(shape))
    values = values.astype(np.float32)
    leaf = key.rsplit(".", 1)[-1]
    if len(shape) >= 2 and leaf == "weight":
        return values * np.float32(meta["gain"] / np.sqrt(max(1, int(np.prod(shape[1:])))))
    if len(shape) <= 1 and leaf == "weight":
        return 1 + np.float32(0.1) * values
    return values * np.float32(0.02 if leaf == "bias" else 0.5)
