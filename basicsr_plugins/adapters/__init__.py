"""Adapters: one PEFT adapter per degradation on a frozen network, and their blend per image in one forward pass.

Nothing here loads PEFT before an adapter is attached or an adapter that is no plain LoRA is read.
"""

from __future__ import annotations

from basicsr_plugins.adapters.attach import AttachedAdapter, attach_adapter, load_adapter
from basicsr_plugins.adapters.blend import BlendedLayer
from basicsr_plugins.adapters.factors import Factor, read_factors
from basicsr_plugins.adapters.fingerprint import fingerprint
from basicsr_plugins.adapters.folder import AdapterFolder, find_adapters, read_folder
from basicsr_plugins.adapters.modes import MODES, blend_weights
from basicsr_plugins.adapters.network import BlendedNetwork
from basicsr_plugins.adapters.targets import select_targets

__all__ = [
    "MODES",
    "AdapterFolder",
    "AttachedAdapter",
    "BlendedLayer",
    "BlendedNetwork",
    "Factor",
    "attach_adapter",
    "blend_weights",
    "find_adapters",
    "fingerprint",
    "load_adapter",
    "read_factors",
    "read_folder",
    "select_targets",
]
