"""Degradations: small seeded objects, one family per file, readable from YAML.

>>> import numpy as np
>>> from basicsr_plugins.degradations import build_degradation
>>> noise = build_degradation({"type": "GaussianNoise", "sigma": [15, 50]})
>>> result = noise(np.zeros((8, 8, 3), np.float32), np.random.default_rng(0))  # float32 RGB (h, w, 3) in [0, 1]
>>> result.image.shape, sorted(result.params)
((8, 8, 3), ['field_seed', 'sigma', 'type'])
"""

from __future__ import annotations

from basicsr_plugins.degradations.base import Degradation, Degraded
from basicsr_plugins.degradations.build import build_degradation, degradation_names

__all__ = ["Degradation", "Degraded", "build_degradation", "degradation_names"]
