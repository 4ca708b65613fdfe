"""`basicsr-plugins doctor`: versions, traps, the start-up route, and option files checked without training."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest
import tiny_runs

from basicsr_plugins.core import registration
from basicsr_plugins.stock import installation

GOOD = dict.fromkeys(installation.PACKAGES, "1.0.0") | {"torch": "2.5.1+cpu", "torchvision": "0.20.1"}


def test_the_report(capsys):
    assert tiny_runs.run_command("doctor") == 0
    said = capsys.readouterr().out
    for name in ("python", *installation.PACKAGES):
        assert f"\n{name} " in said
    for part in ("start-up ", "Known incompatibilities", "RestorationModel", "GaussianNoise", "basicsr_plugins  "):
        assert part in said
    assert str(installation.basicsr_copies()[0]) in said


def test_renamed_names_are_listed(capsys, monkeypatch):
    monkeypatch.setitem(registration._renamed["arch"], "Restormer", "Restormer_basicsr_plugins")
    tiny_runs.run_command("doctor")
    assert "Restormer was there already and stays; ours is Restormer_basicsr_plugins." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "python", "part"),
    [
        ({"torch": None}, (3, 11), "nothing here works without it"),
        ({"torchvision": "0.19.0"}, (3, 11), "which needs 0.20.*"),
        ({"torch": "1.13.1", "torchvision": "0.13.0"}, (3, 11), "which needs 0.14.*"),
        ({"torch": "2.1.0", "torchvision": "0.16.0"}, (3, 11), "train.compile needs 2.2"),
        ({"torch": "2.2.0", "torchvision": "0.17.0"}, (3, 11), "fp16 on the CPU needs 2.3"),
        ({}, (3, 11), "no longer has transforms.functional_tensor"),
        ({"basicsr": None}, (3, 13), "Install it with tools/install_basicsr.py"),
        ({"peft": None}, (3, 11), "peft is not installed: no adapters"),
        ({"mmengine": None}, (3, 11), "mmengine is not installed: no SPN"),
        ({"opencv": None}, (3, 11), "opencv is not installed"),
    ],
)
def test_known_traps(change, python, part):
    assert part in "\n".join(installation.incompatibilities({**GOOD, **change}, python))


def test_a_python_without_distutils(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "distutils" else find(name))
    assert "has no distutils" in "\n".join(installation.incompatibilities(GOOD, (3, 12)))
    assert "has no distutils" not in "\n".join(installation.incompatibilities(GOOD, (3, 11)))


def test_versions_that_fit_are_passed_over():
    fitting = {**GOOD, "torch": "2.6.0", "torchvision": "0.21.0", "basicsr": None}
    said = "\n".join(installation.incompatibilities(fitting, (3, 12)))
    assert "belong" not in said
    assert "needs 2." not in said


def test_copies_that_hide_each_other(tmp_path, monkeypatch):
    clone = tmp_path / "basicsr"
    clone.mkdir()
    (clone / "__init__.py").write_text("from .version import __version__\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert clone in installation.basicsr_copies()
    monkeypatch.setattr(installation, "basicsr_copies", lambda: [clone, tmp_path / "other"])
    said = "\n".join(installation.incompatibilities(GOOD))
    for part in ("several packages are called basicsr", "a fork without registries", "has no version.py"):
        assert part in said
    monkeypatch.setattr(installation, "basicsr_copies", list)
    assert "basicsr is not installed" in "\n".join(installation.incompatibilities(GOOD))


def fork(folder, *, init, registry, setup):
    """Write a fork's skeleton: Restormer's and NAFNet's have neither ``__init__.py`` nor registries."""
    package = folder / "basicsr"
    for name in ("models", "utils"):
        (package / name).mkdir(parents=True)
    if init:
        (package / "__init__.py").write_text("from .version import __gitsha__, __version__\n")
    if registry:
        (package / "utils" / "registry.py").touch()
    if setup:
        (folder / "setup.py").touch()
    return package


@pytest.mark.parametrize("setup", [False, True])
@pytest.mark.parametrize("registry", [False, True])
@pytest.mark.parametrize("init", [False, True])
def test_forks(tmp_path, monkeypatch, init, registry, setup):
    package = fork(tmp_path, init=init, registry=registry, setup=setup)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "basicsr", raising=False)
    importlib.invalidate_caches()
    assert installation.basicsr_copies() == [package]
    said = "\n".join(installation._basicsr_notes())
    assert "is not installed" not in said
    assert ("a fork without registries" in said) is not registry
    assert ("has no version.py" in said) is init
    assert ("setup.py develop" in said) is (init and setup)


@pytest.mark.parametrize("init", [False, True])
def test_a_fork_in_the_current_folder_is_named(tmp_path, monkeypatch, init):
    package = fork(tmp_path, init=init, registry=False, setup=False)
    installed = installation.basicsr_copies()[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    said = "\n".join(installation._basicsr_notes())
    assert f"{package} is called basicsr too" in said
    assert (f"it hides {installed}" in said) is init
    monkeypatch.syspath_prepend("")
    assert package in [copy.resolve() for copy in installation.basicsr_copies()]


def test_the_start_up_route(monkeypatch):
    monkeypatch.setenv("BASICSR_PLUGINS_AUTOLOAD", "0")
    assert "switched off" in installation.start_up_route()
    monkeypatch.delenv("BASICSR_PLUGINS_AUTOLOAD")

    class Finder:
        basicsr_plugins_role = "SignalFinder"

    monkeypatch.setattr("sys.meta_path", [Finder()])
    assert installation.start_up_route().startswith("start-up hook:")
    monkeypatch.setattr("sys.meta_path", [])
    monkeypatch.delitem(__import__("sys").modules, "basicsr.models", raising=False)
    assert installation.start_up_route().startswith("none:")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_runs.write_images(tmp_path / "images")
    return tmp_path


def doctor(folder, capsys, options, *arguments):
    file = tiny_runs.write_options(folder / "x.yml", options)
    before = sorted(folder.rglob("*"))
    code = tiny_runs.run_command("doctor", "-opt", file, *arguments)
    assert sorted(folder.rglob("*")) == before
    return code, capsys.readouterr()


@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_a_right_option_file(folder, capsys, recipe):
    options = tiny_runs.option_file(folder / "images", recipe, num_gpu=8)  # more than this machine has
    code, said = doctor(folder, capsys, options)
    assert code == 0, said.err
    assert "nothing wrong for a training" in said.out


def test_a_wrong_option_file(folder, capsys):
    options = tiny_runs.option_file(folder / "images")
    code, said = doctor(folder, capsys, {**options, "num_gpu": "x"})
    assert (code, said.out) == (1, "")
    assert "num_gpu: expected auto or a number of GPUs" in said.err
    code, said = doctor(folder, capsys, options, "--set", "train.ema_deacy=0.9")
    assert code == 1
    assert said.err.count("\n") == 1
    assert "Did you mean 'ema_decay'" in said.err
    code, said = doctor(folder, capsys, tiny_runs.merge(options, {"path": {"resume_state": "nowhere.state"}}))
    assert "path.resume_state: there is no file" in said.err


def test_an_option_file_for_a_test(folder, capsys):
    test = {
        "name": "t", "model_type": "RestorationModel", "scale": 1, "network_g": tiny_runs.NETWORK, "path": {},
        "datasets": {"test": {"name": "a", "type": "DegradationDataset", "dataroot_gt": str(folder / "images"),
                              "degradations": tiny_runs.DEGRADATIONS}},
    }  # fmt: skip
    code, said = doctor(folder, capsys, test, "--test")
    assert code == 0, said.err
    assert "nothing wrong for a test" in said.out
    code, said = doctor(folder, capsys, test)
    assert code == 1


def test_a_stock_option_file(folder, capsys):
    options = tiny_runs.option_file(folder / "images", model_type="SRModel", surprise=1)
    paired = {"type": "PairedImageDataset", "dataroot_lq": "a", "dataroot_gt": "b", "degradations": None}
    code, said = doctor(folder, capsys, tiny_runs.merge(options, {"datasets": {"train": paired}}))
    assert code == 0, said.err
    assert "only BasicSR itself checks it" in said.out
