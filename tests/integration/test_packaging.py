"""Wheel, sdist, editable install and uninstall in real virtual environments."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import zipfile

import pytest
from environments import ROOT, Environment, copy_source, environment

pytestmark = pytest.mark.integration
STARTUP = {"basicsr_plugins.pth", "basicsr_plugins.start", "_basicsr_plugins_bootstrap.py"}
REPORT = """
import json, sys
import basicsr
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
ours = {}
for registry in (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY):
    ours[registry._name] = sorted(n for n, thing in registry if thing.__module__.startswith("basicsr_plugins"))
print(json.dumps(ours))
"""
EXPECTED = {
    "arch": {"Restormer", "NAFNet", "DegradationClassifier"},
    "dataset": {"DegradationDataset", "AllInOneDataset"},
    "loss": {"DCPTLoss", "FocalLoss"},
    "metric": {"calculate_rain_removal"},
    "model": {"DCPTModel", "RestorationModel"},
}


def test_wheel_holds_startup_and_option_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = archive.read(next(name for name in names if name.endswith("RECORD"))).decode()
    assert names >= STARTUP
    assert all(name in record for name in STARTUP)
    model = {name.split("builtin_model/")[1] for name in names if "builtin_model/" in name}
    here = ROOT / "basicsr_plugins" / "builtin_model"
    assert model == {file.relative_to(here).as_posix() for file in here.rglob("*") if file.is_file()}
    assert {"base.safetensors", "estimator.safetensors", "adapters/rain/adapter_config.json"} <= model
    shipped = {name.split("option_files/")[1] for name in names if "option_files/" in name}
    assert shipped == {str(path.relative_to(ROOT / "options")) for path in (ROOT / "options").rglob("*.yml")}
    assert "basicsr_plugins/py.typed" in names


def test_sdist_builds_the_same_wheel(tmp_path, wheel):
    source = copy_source(tmp_path / "source")
    code = "import setuptools.build_meta as backend; print(backend.build_sdist('.'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    with tarfile.open(source / done.stdout.strip().splitlines()[-1]) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    [unpacked] = (tmp_path / "unpacked").iterdir()
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*command, str(unpacked)], check=True, env=environment(), capture_output=True)
    [again] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(wheel) as two:
        assert sorted(one.namelist()) == sorted(two.namelist())


def test_pth_and_start_name_the_same_function():
    folder = ROOT / "basicsr_plugins" / "_startup"
    module, function = (folder / "basicsr_plugins.start").read_text().strip().split(":")
    assert (folder / "basicsr_plugins.pth").read_text().strip() == f"import {module}; {module}.{function}()"


def test_wheel_registers_everything_when_basicsr_is_imported(installed):
    ours = json.loads(installed.run("-c", REPORT).stdout.splitlines()[-1])
    for kind, names in EXPECTED.items():
        assert names <= set(ours[kind]), kind


def test_editable_install_registers_and_survives_a_moved_clone(tmp_path):
    source = copy_source(tmp_path / "clone")
    made = Environment(tmp_path / "env")
    made.install("-e", str(source))
    ours = json.loads(made.run("-c", REPORT).stdout.splitlines()[-1])
    assert set(ours["model"]) >= EXPECTED["model"]

    shutil.move(source, tmp_path / "elsewhere")
    quiet = made.run("-c", "pass")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    warned = made.run("-c", "import basicsr; print('basicsr works')")
    assert "basicsr works" in warned.stdout
    assert warned.stderr.count("basicsr_plugins could not register itself") == 1


def test_uninstall_leaves_nothing(tmp_path, wheel):
    made = Environment(tmp_path / "env")
    before = made.files()
    made.install(str(wheel))
    assert made.files() >= before | STARTUP
    made.pip("uninstall", "-q", "-y", "basicsr-plugins")
    assert made.files() == before
    done = made.run("-c", "pass")
    assert (done.stdout, done.stderr) == ("", "")


def test_autoload_can_be_switched_off(installed):
    code = "import basicsr.utils.registry"  # BasicSR 1.4.2 itself does not import on current torchvision without us
    done = installed.run(
        "-c",
        f"import sys\ntry:\n    {code}\nexcept ModuleNotFoundError: pass\nprint('basicsr_plugins' in sys.modules)",
        BASICSR_PLUGINS_AUTOLOAD="0",
    )  # fmt: skip
    assert done.stdout.split()[-1] == "False"
    explicit = installed.run(
        "-c", f"import basicsr_plugins; basicsr_plugins.register()\n{REPORT}", BASICSR_PLUGINS_AUTOLOAD="0"
    )
    assert set(json.loads(explicit.stdout.splitlines()[-1])["model"]) >= EXPECTED["model"]


def test_without_our_compat_basicsr_does_not_import(installed):
    """The fix is really ours: switched off, the released BasicSR fails on a torchvision without the module."""
    import torchvision.transforms

    if hasattr(torchvision.transforms, "functional_tensor"):
        pytest.skip("this torchvision still has the module")
    failed = installed.run("-c", "import basicsr", expect=1, BASICSR_PLUGINS_AUTOLOAD="0")
    # from Python 3.12 on distutils is missed first: this environment does not run setuptools' start-up file
    assert "functional_tensor" in failed.stderr or "No module named 'distutils'" in failed.stderr
    works = installed.run("-c", "import basicsr, sys; print('torchvision.transforms.functional_tensor' in sys.modules)")
    assert works.stdout.split()[-1] == "False"  # nobody else sees a module that torchvision does not have
    others = installed.run("-c", "import basicsr\nimport torchvision.transforms.functional_tensor", expect=1)
    assert "ModuleNotFoundError" in others.stderr


def test_without_distutils_basicsr_alone_gets_a_stand_in(installed):
    """Python 3.12 and later have no distutils; here every Python loses it."""
    code = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.startswith("distutils") else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [f if hasattr(f, "basicsr_plugins_role") else Without(f) for f in sys.meta_path]
from basicsr.archs.arch_util import LooseVersion
print(LooseVersion("0.27.1+cu130") >= LooseVersion("0.9.0") > LooseVersion("0.8.12"))
print([name for name in sys.modules if name.startswith("distutils")])
import distutils
"""
    done = installed.run("-c", code, expect=1)
    assert done.stdout.splitlines()[-2:] == ["True", "[]"]
    assert "No module named 'distutils'" in done.stderr


def test_a_fork_without_registries_goes_on_working(installed, tmp_path):
    fork = tmp_path / "fork" / "basicsr"
    (fork / "models").mkdir(parents=True)
    (fork / "__init__.py").write_text("")  # the installed basicsr would win over a folder without it
    (fork / "models" / "__init__.py").write_text("answer = 42\n")  # like Restormer's: no registry
    done = installed.run("-c", "import basicsr.models; print(basicsr.models.answer)", PYTHONPATH=str(fork.parent))
    assert done.stdout.strip() == "42"
    assert done.stderr == ""
    explicit = installed.run(
        "-c", "import basicsr_plugins; basicsr_plugins.register()", expect=1, PYTHONPATH=str(fork.parent)
    )
    assert "DependencyError" in explicit.stderr


def test_an_existing_name_stays_and_ours_is_renamed(installed, stock_basicsr, tmp_path):
    checkout = tmp_path / "BasicSR"
    shutil.copytree(stock_basicsr, checkout)
    (checkout / "basicsr" / "archs" / "mine_arch.py").write_text(
        "from basicsr.utils.registry import ARCH_REGISTRY\n\n\n"
        "@ARCH_REGISTRY.register()\nclass Restormer:\n    mine = True\n"
    )
    code = (
        "import basicsr\nfrom basicsr.utils.registry import ARCH_REGISTRY as r\n"
        "print(r.get('Restormer').mine, r.get('Restormer_basicsr_plugins').__module__)\n"
        "import basicsr_plugins; basicsr_plugins.register(); basicsr_plugins.register()"
    )
    done = installed.run("-c", code, PYTHONPATH=str(checkout))
    assert "True basicsr_plugins.archs.restormer_arch" in done.stdout
    assert done.stderr.count("'Restormer' is already registered by basicsr.archs.mine_arch") == 1


def test_a_basicsr_that_fails_keeps_its_own_error(installed, tmp_path):
    package = tmp_path / "broken" / "basicsr"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "models" / "__init__.py").write_text("raise RuntimeError('their own trouble')\n")
    done = installed.run("-c", "import basicsr.models", expect=1, PYTHONPATH=str(package.parent))
    assert "RuntimeError: their own trouble" in done.stderr
    assert "basicsr_plugins could not" not in done.stderr


def test_a_failure_of_ours_is_one_warning_or_raises_when_strict(installed, tmp_path):
    broken = tmp_path / "broken" / "basicsr_plugins"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("def register():\n    raise ValueError('a bug of ours')\n")
    code = "import basicsr; print('basicsr works')"
    done = installed.run("-c", code, PYTHONPATH=str(broken.parent))
    assert "basicsr works" in done.stdout
    assert done.stderr.count("a bug of ours") == 1
    assert "Traceback" not in done.stderr
    strict = installed.run("-c", code, expect=1, PYTHONPATH=str(broken.parent), BASICSR_PLUGINS_STRICT="1")
    assert "ValueError: a bug of ours" in strict.stderr


def test_a_process_without_basicsr_pays_nothing(installed):
    """No module is imported that Python had not loaded already, and the bootstrap's own line stays under 1 ms."""
    listing = "import sys; print(sorted(sys.modules))"
    with_hook = set(eval_list(installed.run("-c", listing).stdout))
    without = set(eval_list(installed.run("-c", listing, BASICSR_PLUGINS_AUTOLOAD="0").stdout))
    assert with_hook == without
    hook_only = "import sys; print([m for m in sys.modules if 'basicsr' in m])"
    assert eval_list(installed.run("-c", hook_only).stdout) == ["_basicsr_plugins_bootstrap"]

    micros = []
    for _ in range(20):
        text = installed.run("-X", "importtime", "-c", "pass", PYTHONDONTWRITEBYTECODE="").stderr
        [line] = [line for line in text.splitlines() if line.endswith(" _basicsr_plugins_bootstrap")]
        micros.append(int(line.split(":")[1].split("|")[0]))
    assert statistics.median(micros) < 1000, micros


def test_importing_the_package_is_light(installed):
    code = (
        "import sys, basicsr_plugins; print([m for m in ('torch', 'peft', 'mmengine', 'basicsr') if m in sys.modules])"
    )
    assert installed.run("-c", code).stdout.strip() == "[]"
    losses = (
        "import sys\nfrom basicsr_plugins.losses.focal_loss import FocalLoss\n"
        "from basicsr_plugins.losses.dcpt_loss import DCPTLoss\n"
        "print([m for m in ('peft', 'mmengine', 'basicsr') if m in sys.modules])"
    )
    assert installed.run("-c", losses).stdout.strip() == "[]"


def test_a_spawned_worker_may_import_our_dataset_first(installed):
    code = (
        "import sys\nimport basicsr_plugins.models.dcpt_model as first\nimport basicsr\n"
        "from basicsr.utils.registry import MODEL_REGISTRY\nprint(MODEL_REGISTRY.get('DCPTModel') is first.DCPTModel)"
    )
    done = installed.run("-c", code)
    assert done.stdout.split()[-1] == "True"
    assert done.stderr == ""


def test_init_copies_the_option_files_and_overwrites_nothing(installed, tmp_path):
    installed.run("-m", "basicsr_plugins", "init", str(tmp_path))
    written = tmp_path / "options" / "demo" / "dcpt_nafnet.yml"
    assert written.read_text() == (ROOT / "options" / "demo" / "dcpt_nafnet.yml").read_text()
    written.write_text("mine")
    again = installed.run("-m", "basicsr_plugins", "init", str(tmp_path))
    assert written.read_text() == "mine"
    assert "1 that" in again.stdout or "left as they are" in again.stdout


def eval_list(text: str) -> list[str]:
    """Read a printed list of names."""
    return json.loads(text.strip().splitlines()[-1].replace("'", '"'))
