"""tools/mutants.py: what it changes, what it leaves alone, and that a seed repeats its choice."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[1] / "tools" / "mutants.py"
SOURCE = '''def f(a: int = 3, *, b: bool = True) -> "Literal[4]":
    """Text with 5."""
    if not a < 2 and g(a, b):
        raise ValueError(f"{a:07d}")
    return a + 1
'''
EXPECTED = [
    "line 1: 3 -> 4", "line 1: True -> False",
    "line 3: not a < 2 and g(a, b) -> not a < 2 or g(a, b)", "line 3: not a < 2 -> a < 2",
    "line 3: a < 2 -> a >= 2", "line 3: a < 2 -> a <= 2", "line 3: 2 -> 3", "line 3: g(a, b) -> g(b, a)",
    "line 5: return a + 1 -> return None", "line 5: a + 1 -> a - 1", "line 5: 1 -> 2",
]  # fmt: skip


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("mutants", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_change_of_a_small_function(tool):
    found = dict(tool.mutants(SOURCE, 100, random.Random(0)))
    assert sorted(found) == sorted(EXPECTED)
    assert len(set(found.values())) == len(EXPECTED), "each is one other program"
    for text, changed in found.items():
        compile(changed, text, "exec")


def test_a_seed_repeats_its_choice(tool):
    first, again, other = (list(tool.mutants(SOURCE, 3, random.Random(seed))) for seed in (1, 1, 2))
    assert first == again
    assert len(first) == 3
    assert first != other
