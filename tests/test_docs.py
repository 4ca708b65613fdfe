"""The documentation is true: generated pages are current, every snippet and command in the README runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import basicsr_plugins
from basicsr_plugins.cli.main import build_parser, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced code blocks of one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_generated_pages_are_current():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "write_docs.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}: run python tools/write_docs.py\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("number", [0, 1], ids=["SPN", "DCPT"])
def test_python_snippets_of_the_readme_run(number, monkeypatch):
    """As written, apart from the VGG weights: those are random, because none can be downloaded here."""
    from basicsr_plugins.archs.nafnet_arch import NAFNet

    code = blocks(ROOT / "README.md", "python")[number].replace('weights="auto"', 'weights="random"')
    code = code.replace("steps=[100, 500, 1000, 2000]", "steps=[1, 2]")
    net = NAFNet(width=4, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1])
    images = torch.rand(2, 3, 32, 32)
    names = {
        "net": net, "optimizer": torch.optim.SGD(net.parameters(), 1e-3), "loader": [(images, images)] * 4,
        "clean": images, "degraded": images, "labels": torch.tensor([0, 4]),
    }  # fmt: skip
    before = {name: value.clone() for name, value in net.state_dict().items()}
    run_code(code, names)
    if number == 0:
        assert names["negatives"].ready
        assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
    else:
        assert any(parameter.grad is not None for parameter in names["net_dc"].parameters())


def run_code(code: str, names: dict) -> None:
    """Run a snippet of our own README."""
    exec(compile(code, "README.md", "exec"), names)


USE_MY_MODULE = """
import sys
import numpy as np, torch
sys.path.insert(0, {tests!r})
import basicsr_plugins, my_module, tiny_runs
basicsr_plugins.register()
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.degradations import build_degradation
from basicsr_plugins.launch.checking import check_options
from pathlib import Path
folder = Path({folder!r})
tiny_runs.write_images(folder / "images")
changes = {{
    "model_type": "IdentityModel", "scale": 1,
    "train": {{"identity_weight": 0.5, "extra_losses": {{"l_edge": {{"type": "EdgeLoss", "loss_weight": 0.1}}}}}},
    "datasets": {{"train": {{"degradations": ["Gamma"]}}}},
    "val": {{"metrics": {{"darkest": {{"type": "calculate_darkest", "better": "higher"}}}}}},
}}
options = {{**tiny_runs.parsed_options(folder, **changes), "network_g": {{"type": "TinyNet", "width": 4}}}}
check_options(options)
from basicsr.models import build_model
log = tiny_runs.train(build_model(options), [1, 2])[-1]
result = build_degradation("gamma")(np.full((4, 4, 3), 0.5, np.float32), np.random.default_rng(0))
assert (result.image < 0.5).all(), result.image
print(*log)
"""


def test_what_contributing_adds_can_be_used(tmp_path):
    """The snippets, one after another, are a module of one's own; its parts are checked and trained together."""
    (tmp_path / "my_module.py").write_text("\n".join(blocks(ROOT / "docs" / "contributing.md", "python")))
    code = USE_MY_MODULE.format(tests=str(ROOT / "tests"), folder=str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-3:] == ["l_pix", "l_edge", "l_identity"]


def commands() -> list[str]:
    """Return every basicsr-plugins command line of README and docs."""
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            found += [line.split("#")[0].strip() for line in block.splitlines() if line.startswith("basicsr-plugins")]
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command):
    """Each command and each of its arguments exists (what they do is tested with each command)."""
    parsed = build_parser().parse_args(shlex.split(command)[1:])
    assert parsed.func


def test_option_files_named_in_the_pages_exist():
    for page in PAGES:
        for name in re.findall(r"options/[\w/]+\.yml", page.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{page.name} names {name}"
        for name in re.findall(r"\]\((docs/[\w./]+|[\w]+\.md)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / name).is_file(), f"{page.name} links to {name}"


def test_yaml_snippets_are_yaml():
    class Loader(yaml.SafeLoader):
        """Takes the python tag that how_it_hooks_in.md shows, without running it."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
    for page in PAGES:
        for block in blocks(page, "yaml"):
            assert yaml.load(block, Loader=Loader)


def test_citation_names_the_package_and_the_papers():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == basicsr_plugins.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)
    numbers = [each["value"] for paper in cited["references"] for each in paper["identifiers"]]
    assert len(numbers) == len(set(numbers)) == 5
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for paper in cited["references"]:
        assert {"type", "title", "authors", "year"} <= set(paper)
        assert paper["identifiers"][0]["value"].replace(":", " ") in readme


def test_pre_commit_hooks_are_the_checks_of_the_test_command():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    script = (ROOT / "tools" / "run_tests.sh").read_text(encoding="utf-8")
    for hook in hooks:
        assert hook["language"] == "system"
        assert hook["entry"].split(" --")[0] in script


def test_list_and_init(capsys, tmp_path):
    assert main(["list", "arch"]) == 0
    assert "Restormer" in capsys.readouterr().out
    assert main(["list", "arhc"]) == 1
    assert "'arch'" in capsys.readouterr().err
    assert main(["init", str(tmp_path)]) == 0
    shipped = {path.relative_to(ROOT) for path in (ROOT / "options").rglob("*.yml")}
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.yml")} == shipped
