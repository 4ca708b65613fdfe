"""Degradations: small seeded objects, one family per file, readable from YAML.

>>> from basicsr_plugins.degradations import build_degradation
>>> noise = build_degradation({"type": "GaussianNoise", "sigma": [15, 50]})
>>> result = noise(image, np.random.default_rng(0))  # float32 RGB (h, w, 3) in [0, 1]
>>> result.image, result.params, result.layers
"""

from __future__ import annotations

from basicsr_plugins.degradations.base import Degradation, Degraded
from basicsr_plugins.degradations.build import build_degradation, degradation_names

__all__ = ["Degradation", "Degraded", "build_degradation", "degradation_names"]
