"""``basicsr-plugins models``: the table, one row, JSON, and what the cache holds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
    assert {row["cached"] for row in rows.values()} == {"no", "-"}
    assert {row["size"] for row in rows.values()} == {"unknown", "-"}
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


def test_the_model_of_the_package(capsys, monkeypatch):
    assert "brings no model of its own" in listed("builtin", capsys=capsys)
    monkeypatch.setattr("basicsr_plugins.restore.packaged.packaged_model", lambda: "/somewhere")
    assert models.builtin_details()["cached"] == "/somewhere"


def test_a_misspelt_name(capsys):
    assert main(["models", "promptir_d3"]) == 1
    assert "Did you mean 'promptir_3d'" in capsys.readouterr().err


def test_the_list_needs_no_torch():
    code = "import sys; from basicsr_plugins.cli.main import main; main(['models']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
