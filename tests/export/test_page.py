"""What docs/export.md shows runs, and its table names every network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from export_networks import OURS, STOCK, small, write_small
from PIL import Image

from basicsr_plugins.export.exporter import export_model
from basicsr_plugins.export.options import OPSETS, TOLERANCE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(code):
    exec(compile(code, "export.md", "exec"), {})


def test_the_onnx_file_runs_as_shown(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    write_small("NAFNet", tmp_path / "net.pth")
    export_model("net.pth", "net.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    run(SNIPPETS[0])
    with torch.no_grad():
        wanted = small("NAFNet")(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255).clamp(0, 1)[0]
    got = np.asarray(Image.open("restored.png")).astype(np.float32) / 255
    assert np.abs(got - wanted.permute(1, 2, 0).numpy()).max() < 0.51 / 255 + 1e-4


def test_the_python_call_runs_as_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_small("NAFNet", tmp_path / "net_g_latest.pth")
    run(SNIPPETS[1])
    assert capsys.readouterr().out.startswith("torchscript 0.0")


def test_the_numbers_of_the_page_are_those_of_the_code():
    for name in (*OURS, *STOCK):
        assert f"`{name}`" in PAGE
    assert [f"{TOLERANCE[each]:g}" for each in ("fp32", "fp16", "bf16")] == ["0.0001", "0.01", "0.05"]
    assert "1e-4 (fp32), 1e-2 (fp16) or 5e-2 (bf16)" in PAGE
    assert f"`--opset` takes {OPSETS[0]} to {OPSETS[-1]}" in PAGE
