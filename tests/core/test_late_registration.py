"""A program that registers names of ours after us, in the layouts of hat and realesrgan, runs as it does without us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

#: A foreign package's file of one kind: it registers every name of ours, by decorator or by call.
FOREIGN = """
from basicsr.utils.registry import {registry} as REGISTRY

def _add(name):
    made = type(name, (), {{"foreign": True}})
    made.__module__ = __name__
    {register}

for name in {names!r}:
    _add(name)
"""
#: hat's folders import their files by a scan, realesrgan's by name.
SCAN = """
import importlib
from os import path as osp
from basicsr.utils import scandir
folder = osp.dirname(osp.abspath(__file__))
names = [osp.splitext(osp.basename(v))[0] for v in scandir(folder) if v.endswith('_{folder}.py')]
modules = [importlib.import_module(f'{package}.{folder}.{{name}}') for name in names]
"""
PROGRAM = """
import json, logging, sys
lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger("basicsr").addHandler(Lines())
from basicsr_plugins._startup import _basicsr_plugins_bootstrap as bootstrap
bootstrap.install()
import {package}
from basicsr.utils import registry
from basicsr_plugins.core import registration
from basicsr_plugins.launch.checking import check_options
assert registration.is_connected()
for kind in registration.BASICSR_KINDS:
    known = dict(iter(getattr(registry, kind.upper() + "_REGISTRY")))
    for name, ours in registration.provided(kind).items():
        assert known[name].foreign, (kind, name)
        aside = registration.renamed(kind)[name]
        assert aside == name + "_basicsr_plugins" and known[aside] is ours, (kind, name)
        assert registration.lookup(kind, aside) is ours
        assert registration.lookup(kind, name) is known[name]
        assert sum(repr(aside) in line for line in lines) == 1, (kind, name, lines)
opt = json.loads(sys.argv[1])
run = check_options(opt)
assert type(run.train).__name__ == "TrainSettings"
print("complete")
"""


def write_package(root: Path, package: str, by_decorator: bool) -> None:
    """Write a package whose folders register every name of ours."""
    from basicsr_plugins.core import registration

    folders = {"arch": "archs", "dataset": "data", "loss": "losses", "metric": "metrics", "model": "models"}
    for kind, folder in folders.items():
        place = root / package / folder
        place.mkdir(parents=True)
        suffix = {"arch": "arch", "dataset": "dataset", "loss": "loss", "metric": "metric", "model": "model"}[kind]
        scan = SCAN.replace("_{folder}.py", f"_{suffix}.py").format(folder=folder, package=package)
        (place / "__init__.py").write_text(scan if by_decorator else f"from .all_{suffix} import *\n")
        register = "REGISTRY.register()(made)" if by_decorator else "REGISTRY.register(made)"
        names = sorted(registration.provided(kind))
        content = FOREIGN.format(registry=f"{kind.upper()}_REGISTRY", names=names, register=register)
        (place / f"all_{suffix}.py").write_text(content)
    lines = [f"from .{folder} import *" for folder in folders.values()]
    (root / package / "__init__.py").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("package", "master"), [("hatlike", False), ("realesrganlike", True)])
def test_a_program_that_registers_all_of_our_names_later_runs(tmp_path, package, master):
    import basicsr
    import tiny_runs

    write_package(tmp_path, package, by_decorator=package == "hatlike")
    if master:  # a checkout on PYTHONPATH, hiding the installed one
        shutil.copytree(
            Path(basicsr.__file__).parent, tmp_path / "basicsr", ignore=shutil.ignore_patterns("__pycache__")
        )
        init = tmp_path / "basicsr" / "__init__.py"
        lines = [line for line in init.read_text().splitlines() if "version" not in line]
        init.write_text("\n".join(lines) + "\n")
        (tmp_path / "basicsr" / "version.py").write_text("__version__ = '1.4.2'\n__gitsha__ = 'unknown'\n")
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM.format(package=package)))
    tiny_runs.write_images(tmp_path / "images")
    opt = tiny_runs.parsed_options(tmp_path, model_type="RestorationModel_basicsr_plugins")
    opt["datasets"]["train"]["type"] += "_basicsr_plugins"
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "program.py", json.dumps(opt)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root]), "BASICSR_PLUGINS_STRICT": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("complete\n")
