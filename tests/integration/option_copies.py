"""Scaled-down copies of the shipped option files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from basicsr_plugins.core.safe_yaml import apply_overrides, load_yaml

ROOT = Path(__file__).resolve().parents[2]


def plain(value: Any) -> Any:
    """Turn ordered mappings into plain ones."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def write_options(source: str, target: Path, *overrides: str) -> Path:
    """Write a copy of ``options/<source>`` with overrides (as ``--set`` takes them)."""
    options = load_yaml(ROOT / "options" / source)
    apply_overrides(options, overrides)
    target.write_text(yaml.safe_dump(plain(options), sort_keys=False))
    return target
