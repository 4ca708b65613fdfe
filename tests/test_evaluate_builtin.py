"""tools/evaluate_builtin.py: the classical tools do what they are for, and the table says what the rows say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from basicsr_plugins.degradations import build_degradation

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    try:
        import evaluate_builtin
    finally:
        sys.path.remove(str(TOOLS))
    return evaluate_builtin


@pytest.mark.parametrize("name", ["rain", "noise", "haze", "low_light", "blur", "jpeg", "snow"])
def test_a_classical_tool_helps_against_its_degradation(tool, name):
    data = pytest.importorskip("skimage.data")
    image = np.ascontiguousarray(data.chelsea()[60:220, 100:300])
    degraded = build_degradation(tool.degradations()[name])(image.astype(np.float32) / 255, np.random.default_rng(0))
    lq = np.rint(degraded.image * 255).astype(np.uint8)
    results = [
        tool.psnr(image, each.run(lq, setting))
        for each in tool.TOOLS[name]
        if each.name != "BM3D"  # a package of its own, and slow
        for setting in each.settings
    ]
    assert max(results) > tool.psnr(image, lq)


def test_psnr_of_equal_images_is_finite(tool):
    image = np.full((4, 4, 3), 7, np.uint8)
    assert tool.psnr(image, image) == 100
    assert tool.psnr(image, image + 1) == pytest.approx(48.1308, abs=1e-3)


def test_the_table_says_what_the_rows_say(tool):
    rows = []
    for seed in (0, 1):
        for photograph, before, after in (("a", 20.0, 25.0), ("b", 22.0, 21.0)):
            rows.append(tool.Row(photograph, "rain", seed, "input", before, 0.5))
            rows.append(tool.Row(photograph, "rain", seed, "blind", after + seed, 0.7, "rain" if seed else "snow"))
            rows.append(tool.Row(photograph, "rain", seed, "adapter rain", after + 1, 0.7))
            rows.append(tool.Row(photograph, "rain", seed, "median filter 3", 20.5, 0.5))
            rows.append(tool.Row(photograph, "rain", seed, "median filter 5", 20.75, 0.5))
    line = tool.table(rows).splitlines()[2]
    expected = (
        "| rain | 21.00 ± 0.00 | **23.50 ± 0.71** | 24.00 | median filter 5 20.75 | 0.500 to 0.700 | -1.00 | 2 of 4 |"
    )
    assert line == expected
