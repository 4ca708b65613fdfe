"""``basicsr-plugins models``: the table, one row, JSON, and what the cache holds."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from basicsr_plugins.archs.nafnet_arch import NAFNet
from basicsr_plugins.cli import models
from basicsr_plugins.cli.main import main
from basicsr_plugins.hub.cache import model_folder
from basicsr_plugins.hub.published import MODELS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BASICSR_PLUGINS_CACHE", str(tmp_path / "cache"))


def listed(*words, capsys):
    assert main(["models", *words]) == 0
    return capsys.readouterr().out


def test_the_table(capsys, tmp_path):
    lines = listed(capsys=capsys).splitlines()
    assert lines[0].split() == ["name", "network", "task", "licence", "size", "figure", "from", "cached", "runs"]
    assert [line.split()[0] for line in lines[1 : len(MODELS) + 2]] == ["builtin", *MODELS]
    assert str(tmp_path / "cache") in lines[-2]
    assert not (tmp_path / "cache").exists()


def test_what_lies_in_the_cache(capsys):
    rows = {row["name"]: row for row in json.loads(listed("--json", capsys=capsys))}
    assert rows.pop("builtin")["size"].endswith(" MB")
    assert {row["cached"] for row in rows.values()} == {"no"}
    assert {row["size"] for row in rows.values()} == {"unknown"}
    held = model_folder(MODELS["restormer_deraining"]) / "deraining.pth"
    held.parent.mkdir(parents=True)
    held.write_bytes(b"x" * 1_200_000)
    row = json.loads(listed("restormer_deraining", "--json", capsys=capsys))
    assert (row["cached"], row["size"], row["runs"]) == (str(held), "1.2 MB", "yes")
    (line,) = [line for line in listed(capsys=capsys).splitlines() if line.startswith("restormer_deraining ")]
    assert line.split()[-2:] == ["yes", "yes"]
    assert "1.2 MB" in line
    held.rename(held.with_name("a.pth"))
    held.with_name("b.pth").write_bytes(b"")
    assert "holds a.pth, b.pth" in listed("restormer_deraining", capsys=capsys)


@pytest.mark.parametrize("name", MODELS)
def test_one_row_shows_everything(name, capsys):
    model, shown = MODELS[name], listed(name, capsys=capsys)
    for part in (name, model.file, model.address, str(model_folder(model)), model.licence, model.note, model.missing):
        assert part in shown


def test_the_model_of_the_package(capsys, monkeypatch, tmp_path):
    shown = listed("builtin", capsys=capsys)
    assert "blur, haze, jpeg, low light, noise, rain, snow" in shown
    assert "yes" in shown
    monkeypatch.setattr("basicsr_plugins.restore.packaged.PACKAGED", tmp_path)
    assert models.builtin_details()["runs"].startswith("no: --model: no model was named, and the one that comes with")


def test_a_misspelt_name(capsys):
    assert main(["models", "promptir_d3"]) == 1
    assert "Did you mean 'promptir_3d'" in capsys.readouterr().err


def test_the_list_needs_no_torch():
    code = "import sys; from basicsr_plugins.cli.main import main; main(['models']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def test_the_page_does_what_it_says(capsys, tmp_path, monkeypatch):
    """Its commands that need no network, and its snippet; a file put where the page says is restored with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BASICSR_PLUGINS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = PAGE.read_text(encoding="utf-8")
    names: dict = {}
    exec(compile(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], str(PAGE), "exec"), names)
    assert type(names["again"]).__name__ == "NAFNet"
    Image.new("RGB", (16, 12)).save("photo.jpg")
    name, file = re.findall(r"^models/(\w+)/(.+\.pth)$", text, re.MULTILINE)[0]
    small = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
    monkeypatch.setitem(MODELS, name, dataclasses.replace(MODELS[name], arguments=small))
    held = tmp_path / "basicsr_plugins" / "models" / name / file
    held.parent.mkdir(parents=True)
    torch.save({"params": NAFNet(**small).state_dict()}, held)
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if "hf://" not in line]
    assert len(commands) == 5
    for command in commands:
        assert main(command + (["--device", "cpu", "--overwrite"] if command[0] == "restore" else [])) == 0
    assert held.with_name(f"{file}.json").is_file()
    assert (tmp_path / "photo_restored.jpg").is_file()
    assert f"{name} (" in capsys.readouterr().out
