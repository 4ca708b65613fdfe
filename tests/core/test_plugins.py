"""Other packages' objects: entry points, module:Class, imports of an option file, names that are registered late."""

from __future__ import annotations

import functools
import json
import logging
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs

import basicsr_plugins
from basicsr_plugins.core import plugins, registration
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.degradations import build_degradation
from basicsr_plugins.launch.checking import check_run

EXAMPLE = Path(__file__).parents[1] / "data" / "example_package"


@pytest.fixture
def clean_up(monkeypatch):
    """Undo what a test adds to the tables and to BasicSR's registries."""
    basicsr_plugins.register()
    tables = [registration._provided, registration._renamed, registration._origins]
    before = [{kind: dict(names) for kind, names in table.items()} for table in tables]
    maps = {kind: dict(registry._obj_map) for kind, registry in registration._registries.items()}
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for table, old in zip(tables, before):
        for kind in table:
            table[kind].clear()
            table[kind].update(old[kind])
    for kind, registry in registration._registries.items():
        registry._obj_map.clear()
        registry._obj_map.update(maps[kind])


class Point:
    """An entry point, as importlib.metadata has them."""

    dist = type("Dist", (), {"name": "somebody", "version": "3.1"})
    value = "somebody.losses:Thing"

    def __init__(self, name, load):
        self.name, self.load = name, load


# -- entry points -------------------------------------------------------------------------------------------------


def test_entry_points_are_provided_with_their_origin_and_a_broken_one_harms_nobody(clean_up, monkeypatch, caplog):
    class Thing:
        pass

    def broken():
        raise RuntimeError("no such GPU")

    points = {"basicsr_plugins.loss": [Point("BrokenThing", broken), Point("Thing", lambda: Thing)]}
    monkeypatch.setattr(plugins, "_points", lambda group: points.get(group, []))
    monkeypatch.setattr(plugins, "problems", [])
    monkeypatch.setattr(plugins, "_waiting", {})
    with caplog.at_level(logging.WARNING, "basicsr"):
        assert registration.provided("loss")["Thing"] is Thing
    assert registration.origin("loss", "Thing") == "somebody 3.1"
    assert registration.lookup("loss", "Thing") is Thing
    [problem] = plugins.problems
    for part in ("BrokenThing", "somebody 3.1", "basicsr_plugins.loss", "no such GPU"):
        assert part in problem
        assert part in caplog.text


def test_an_entry_point_does_not_take_a_name_of_ours(clean_up, monkeypatch, caplog):
    ours = registration.provided("loss")["FocalLoss"]
    monkeypatch.setattr(plugins, "_points", lambda group: [Point("FocalLoss", lambda: Point)])
    monkeypatch.setattr(plugins, "_waiting", {})
    with caplog.at_level(logging.WARNING, "basicsr"):
        assert registration.provided("loss")["FocalLoss"] is ours
    assert "somebody 3.1 has the name of ours" in caplog.text


# -- package.module:Class -----------------------------------------------------------------------------------------


@pytest.fixture
def options(tmp_path, monkeypatch):
    basicsr_plugins.register()
    tiny_runs.write_images(tmp_path / "images")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield functools.partial(tiny_runs.parsed_options, tmp_path)
    sys.modules.pop("example_plugins", None)


def test_types_as_module_and_class_run(tmp_path, clean_up, options):
    opt = options(
        model_type="example_plugins:ExampleModel",
        val={"metrics": {"example": {"type": "example_plugins:calculate_example"}}},
    )
    opt["network_g"] = {"type": "example_plugins:ExampleNet", "kernel": 1}
    opt["train"]["pixel_opt"] = {"type": "example_plugins:ExampleLoss", "loss_weight": 2.0}
    opt["datasets"]["train"]["type"] = "example_plugins:ExampleDataset"
    opt["datasets"]["train"]["degradations"] = ["example_plugins:ExampleDegradation", "Clean"]
    check_run(opt)
    from basicsr.data import build_dataset
    from basicsr.models import build_model

    data, model = build_dataset(opt["datasets"]["train"]), build_model(opt)
    assert type(data).__name__ == "ExampleDataset"
    assert data.entries[0].degradation.amount == 0.1
    assert type(model).__name__ == "ExampleModel"
    assert model.net_g.conv.kernel_size == (1, 1)
    log = tiny_runs.train(model, [1, 2])
    assert log[1]["l_pix"] != log[0]["l_pix"]
    assert registration.origin("arch", "example_plugins:ExampleNet") == "example_plugins"


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"type": "example_plugins:ExampleNt"}, r"network_g\.type: example_plugins has unknown .* 'ExampleNet'"),
        ({"type": "no_such_module:Net"}, r"network_g\.type: 'no_such_module' of .* cannot be imported"),
        ({"type": "example_plugins:ExampleNet", "kernl": 1}, r"network_g\.kernl: .*'kernel'"),
        ({"type": ["a"]}, r"network_g\.type: expected the name of a arch"),
    ],
)
def test_wrong_types_are_one_message(clean_up, options, network, message):
    opt = options()
    opt["network_g"] = network
    with pytest.raises(OptionError, match=message):
        check_run(opt)


# -- imports ------------------------------------------------------------------------------------------------------

MODULE = """
from torch import nn
from basicsr_plugins.core.registration import provides

@provides("loss")
class BesideLoss(nn.Module):
    def forward(self, pred, target):
        return (pred - target).abs().mean()
"""


def test_a_module_beside_the_option_file(tmp_path, clean_up):
    (tmp_path / "beside_module.py").write_text(MODULE)
    plugins.import_modules(["beside_module"], tmp_path)
    assert registration.lookup("loss", "BesideLoss").__module__ == "beside_module"
    assert registration.origin("loss", "BesideLoss") == "beside_module"
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # a class from it can be sent to a spawned process
        assert pool.apply(type, (registration.lookup("loss", "BesideLoss")(),)).__name__ == "BesideLoss"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("beside", "expected a list of module names"),
        (["no_such_module"], r"imports\[0\]: 'no_such_module' cannot be imported"),
        (["json", "missing.py"], r"imports\[1\]: there is no file"),
        (["torch"], r"imports\[0\]: a module 'torch' is loaded already"),
    ],
)
def test_wrong_imports(tmp_path, clean_up, names, message):
    (tmp_path / "torch.py").write_text("")
    with pytest.raises(OptionError, match=message):
        plugins.import_modules(names, tmp_path)


def test_safe_refuses_foreign_code():
    plugins.refuse_foreign_code({"network_g": {"type": "NAFNet"}, "path": {"x": "C:file"}})
    for opt, path in (
        ({"imports": ["x"]}, "imports"),
        ({"model_type": "a.b:C"}, "model_type"),
        ({"train": {"spn_opt": {"loss": {"type": "a:B"}}}}, r"train\.spn_opt\.loss\.type"),
        ({"datasets": {"train": {"children": [{"type": "a:B"}]}}}, r"datasets\.train\.children\.0\.type"),
    ):
        with pytest.raises(OptionError, match=path + ": --safe refuses"):
            plugins.refuse_foreign_code(opt)


# -- a foreign registration after ours ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", registration.BASICSR_KINDS)
def test_every_name_of_ours_may_be_registered_late_by_somebody_else(clean_up, caplog, kind):
    registry = registration._registries[kind]
    names = {name: thing for name, thing in registration.provided(kind).items() if registry._obj_map.get(name) is thing}
    assert names
    for name, ours in names.items():
        theirs = type(name, (), {"__module__": "somebody"})
        with caplog.at_level(logging.WARNING, "basicsr"):
            registry.register(theirs)
        assert registry.get(name) is theirs
        assert registry.get(f"{name}_basicsr_plugins") is ours
        assert registration.renamed(kind)[name] == f"{name}_basicsr_plugins"
    assert len([record for record in caplog.records if "whose name it is from here on" in record.message]) == len(names)


def test_stock_still_asserts_where_nothing_of_ours_is_meant(clean_up):
    registry = registration._registries["loss"]
    with pytest.raises(AssertionError):
        registry.register(type("L1Loss", (), {}))
    theirs = type("FocalLoss", (), {})
    registry.register(theirs)
    with pytest.raises(AssertionError):
        registry.register(type("FocalLoss", (), {}))


def test_registering_ours_again_moves_nothing(clean_up):
    before = dict(registration._registries["loss"]._obj_map)
    registration.disconnect()
    basicsr_plugins.register()
    assert dict(registration._registries["loss"]._obj_map) == before


@pytest.mark.parametrize("with_suffix", [False, True])
def test_both_signatures_of_the_registry(clean_up, monkeypatch, with_suffix):
    class Registry:
        def __init__(self):
            self._obj_map = {}

        def __iter__(self):
            return iter(self._obj_map.items())

    def old(self, name, obj):
        assert name not in self._obj_map
        self._obj_map[name] = obj

    def new(self, name, obj, suffix=None):
        old(self, f"{name}_{suffix}" if isinstance(suffix, str) else name, obj)

    Registry._do_register = new if with_suffix else old
    registry, ours, theirs = Registry(), object, type("Theirs", (), {})
    monkeypatch.setitem(registration._provided["loss"], "Late", ours)
    registration._give_way("loss", registry)
    registration._give_way("loss", registry)
    registry._do_register("Late", ours)
    if with_suffix:
        registry._do_register("Late", theirs, "basicsr")
        assert registry._obj_map == {"Late": ours, "Late_basicsr": theirs}
    registry._do_register("Late", theirs)
    assert registry._obj_map["Late"] is theirs
    assert registry._obj_map["Late_basicsr_plugins"] is ours


# -- in a real environment ----------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.slow
def test_an_installed_package_is_listed_and_trains(tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    source = shutil.copytree(EXAMPLE, tmp_path / "source")  # pip builds inside the source tree
    subprocess.run([*install, "--target", str(site), str(source)], check=True, cwd=tmp_path)
    images = tiny_runs.write_images(tmp_path / "images")
    opt = tiny_runs.option_file(images, model_type="ExampleModel", train={"total_iter": 2})
    opt["train"]["pixel_opt"] = {"type": "ExampleLoss"}
    opt["network_g"] = {"type": "ExampleNet"}
    opt["datasets"]["train"].update(type="ExampleDataset", degradations=["ExampleDegradation"])
    file = tiny_runs.write_options(tmp_path / "example.yml", opt)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    listed = run(sys.executable, "-m", "basicsr_plugins", "list")
    assert "ExampleNet" in listed.stdout
    assert "[example-plugins 1.2]" in listed.stdout
    doctor = run(sys.executable, "-m", "basicsr_plugins", "doctor")
    assert "BrokenLoss" in doctor.stdout
    assert doctor.returncode == 0
    trained = run(sys.executable, "-m", "basicsr_plugins", "train", "-opt", str(file))
    assert trained.returncode == 0, trained.stderr
    assert list(tmp_path.glob("experiments/*/models/net_g_latest.pth"))
    stock = "from basicsr.train import train_pipeline; train_pipeline('stock')"  # BasicSR's own parser and loop
    opt["logger"] = {"print_freq": 1, "save_checkpoint_freq": 10, "use_tb_logger": False}
    stock_file = tiny_runs.write_options(tmp_path / "stock.yml", {**opt, "num_gpu": 0})
    trained = run(sys.executable, "-c", stock, "-opt", str(stock_file))
    assert trained.returncode == 0, trained.stderr
    assert list(tmp_path.glob("stock/experiments/*/models/net_g_latest.pth"))
    refused = run(sys.executable, "-m", "basicsr_plugins", "train", "-opt", str(file), "--safe", "--set", "imports=[x]")
    assert refused.returncode != 0
    assert "--safe refuses" in refused.stderr


# -- what --safe promises, and plug-ins that are imported first ---------------------------------------------------


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A module that leaves a file when its code runs."""
    folder, trace = tmp_path / "marker", tmp_path / "ran"
    folder.mkdir()
    (folder / "marker_mod.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass D: ...\n")
    monkeypatch.syspath_prepend(str(folder))
    yield trace
    sys.modules.pop("marker_mod", None)


@pytest.mark.parametrize(
    "entry", ["marker_mod:D", {"type": "marker_mod:D"}, {"type": "Sequence", "steps": ["marker_mod:D"]}]
)
@pytest.mark.parametrize("command", [["train"], ["doctor"]])
def test_safe_runs_no_module_however_it_is_written(tmp_path, clean_up, marker, capsys, entry, command):
    images = tiny_runs.write_images(tmp_path / "images")
    opt = tiny_runs.option_file(images)
    opt["datasets"]["train"]["degradations"] = [entry]
    file = tiny_runs.write_options(tmp_path / "x.yml", opt)
    assert tiny_runs.run_command(*command, "-opt", str(file), "--safe") != 0
    assert "--safe" in capsys.readouterr().err
    assert not marker.exists()
    with pytest.raises(OptionError, match="is no degradation"):  # without --safe it is imported
        build_degradation("marker_mod:D")
    assert marker.exists()


def test_a_manifest_never_runs_a_module(tmp_path, clean_up, marker):
    images = tiny_runs.write_images(tmp_path / "images")
    manifest = tmp_path / "m.json"
    tiny_runs.run_command("degrade", str(images), str(tmp_path / "out"), "--with", "Rain")
    written = next((tmp_path / "out").glob("*.json"))
    content = json.loads(written.read_text())
    content["degradation"] = {"type": "marker_mod:D"}
    manifest.write_text(json.dumps(content))
    assert tiny_runs.run_command("degrade", str(images), str(tmp_path / "again"), "--manifest", str(manifest)) != 0
    assert not marker.exists()


def test_a_stock_model_takes_networks_losses_and_metrics_by_module_and_class(clean_up, options):
    opt = options(model_type="SRModel", val={"metrics": {"m": {"type": "example_plugins:calculate_example"}}})
    opt["network_g"] = {"type": "example_plugins:ExampleNet"}
    opt["train"]["pixel_opt"] = {"type": "example_plugins:ExampleLoss"}
    check_run(opt)
    for kind, name in (("arch", "ExampleNet"), ("loss", "ExampleLoss"), ("metric", "calculate_example")):
        assert registration._registries[kind].get(f"example_plugins:{name}").__name__ == name
    opt["network_g"] = {"type": "example_plugins:Nothing"}
    with pytest.raises(OptionError, match=r"network_g\.type"):
        check_run(opt)


ALL_THERE = """
from basicsr_plugins.core import plugins, registration
from basicsr_plugins.launch.checking import check_run
check_run({"model_type": "SRModel", "datasets": {}})
names = ["ExampleNet", "ExampleLoss", "ExampleDataset", "calculate_example", "ExampleModel", "ExampleDegradation"]
for kind, name in zip(("arch", "loss", "dataset", "metric", "model", "degradation"), names):
    assert name in registration.provided(kind), (kind, plugins.problems)
    if kind != "degradation":
        assert name in dict(iter(registration._registries[kind])), (kind, plugins.problems)
assert len(plugins.problems) == 1 and "BrokenLoss" in plugins.problems[0], plugins.problems
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "import example_plugins",
        "from basicsr_plugins.core import registration; registration.provided('degradation')",
        "import basicsr_plugins; basicsr_plugins.register()",
        "import basicsr",
    ],
)
def test_a_plug_in_is_complete_whatever_is_imported_first(tmp_path, first):
    info = tmp_path / "example_plugins-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-plugins\nVersion: 1.2\n")
    groups = re.findall(r'entry-points\."(.*?)"\]\n((?:\w+ = ".*"\n)+)', (EXAMPLE / "pyproject.toml").read_text())
    lines = [f"[{group}]\n{points}".replace('"', "") for group, points in groups]
    (info / "entry_points.txt").write_text("\n".join(lines))
    root = str(Path(basicsr_plugins.__file__).parents[1])
    path = os.pathsep.join([str(tmp_path), str(EXAMPLE), root])
    code = f"{first}\nimport basicsr_plugins; basicsr_plugins.register()\n{ALL_THERE}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
