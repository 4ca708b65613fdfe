"""ABAIR's three phases and a degradation added later, in order, through the stock scripts on the demo photographs."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from option_copies import plain, write_options

pytestmark = [pytest.mark.integration, pytest.mark.slow]
FIRST, ADDED = ["rain", "low_light", "haze"], "noise"
#: The demo's files with fewer iterations; nothing is validated on the way.
LENGTHS = {"abair_pretrain": 80, "abair_adapter": 45, "abair_blend": 120}


def adapters(names: list[str]) -> str:
    entries = (f"{name}: experiments/demo_abair_adapter_{name}/models/adapter_latest" for name in names)
    return "{" + ", ".join(entries) + "}"


def degradations(names: list[str]) -> str:
    entries = {
        "rain": "{type: Rain, preset: medium}",
        "low_light": "{type: LowLight}",
        "haze": "{type: Haze}",
        "noise": "{type: GaussianNoise, sigma: 50}",
    }
    return "[" + ", ".join(entries[name] for name in names) + "]"


@pytest.fixture(scope="module")
def phases(installed, stock_basicsr, photographs, tmp_path_factory):
    """Run everything in order; return the checkout, the logs, and what the frozen files held before the fourth."""
    checkout = tmp_path_factory.mktemp("abair") / "BasicSR"
    shutil.copytree(stock_basicsr, checkout)
    shutil.copytree(photographs, checkout / "datasets" / "demo")
    logs, snapshots = {}, {}

    def run(source: str, *overrides: str, name: str = "") -> None:
        name = name or source
        length = next(value for prefix, value in LENGTHS.items() if source.startswith(prefix))
        common = (f"train.total_iter={length}", f"train.scheduler.T_max={length}", "num_gpu=0", f"name=demo_{name}")
        write_options(f"demo/{source}.yml", checkout / f"{name}.yml", *common, *overrides)
        done = installed.run("basicsr/train.py", "-opt", f"{name}.yml", cwd=checkout, PYTHONPATH=str(checkout))
        logs[name] = done.stdout + done.stderr

    run("abair_pretrain")
    for name in FIRST:
        run(f"abair_adapter_{name}")
    sets = [f"datasets.{part}.degradations={degradations(FIRST)}" for part in ("train", "val")]
    run("abair_blend_3", f"blend.adapters={adapters(FIRST)}", *sets)
    models = checkout / "experiments"
    frozen = [models / "demo_abair_pretrain/models/net_g_latest.pth"]
    frozen += [models / f"demo_abair_adapter_{name}/models/adapter_latest/adapter_model.safetensors" for name in FIRST]
    snapshots.update((path, path.read_bytes()) for path in frozen)

    run(f"abair_adapter_{ADDED}", "datasets.train.degradations=" + degradations([ADDED]))
    sets = [f"datasets.{part}.degradations={degradations([*FIRST, ADDED])}" for part in ("train", "val")]
    run(
        "abair_blend_3", f"blend.adapters={adapters(FIRST)}", f"blend.add={adapters([ADDED])}", *sets,
        "path.pretrain_network_e=experiments/demo_abair_blend_3/models/net_e_latest.pth", name="abair_blend_added",
    )  # fmt: skip
    return checkout, logs, snapshots


def figure(log: str, name: str) -> float:
    return float(re.findall(rf"# {name}: ([\d.]+)", log)[-1])


def test_phase_one_tells_degradations_apart_and_leaves_no_head_behind(phases):
    checkout, logs, _ = phases
    assert figure(logs["abair_pretrain"], "pixel_accuracy") > 0.26, "chance is 0.2"
    models = checkout / "experiments/demo_abair_pretrain/models"
    exported = torch.load(models / "net_g_latest.pth", weights_only=True)["params"]
    head = torch.load(models / "net_s_latest.pth", weights_only=True)["params"]
    assert set(head).isdisjoint(exported)
    maps = list((checkout / "experiments/demo_abair_pretrain/visualization").rglob("*_map.png"))
    assert len(maps) == 4


def test_phase_three_finds_the_right_adapter(phases):
    _, logs, _ = phases
    assert figure(logs["abair_blend_3"], "accuracy") > 0.6, "chance is 0.33"
    assert figure(logs["abair_blend_added"], "accuracy") > 0.5, "chance is 0.25"
    assert "it knows rain, low_light, haze" in logs["abair_blend_added"]


def test_adding_a_degradation_changes_neither_base_nor_old_adapters(phases):
    _, _, snapshots = phases
    assert all(path.read_bytes() == content for path, content in snapshots.items())


def test_each_way_of_using_the_adapters_on_unseen_photographs(phases, installed):
    """The stock test script with soft weights; the other ways are read off the same model in this process."""
    checkout, _, _ = phases
    names = [*FIRST, ADDED]
    sets = [f"datasets.test_{index + 1}.degradations={entry_of(name, index)}" for index, name in enumerate(FIRST)]
    estimator = "path.pretrain_network_e=experiments/demo_abair_blend_added/models/net_e_latest.pth"
    overrides = (f"blend.adapters={adapters(names)}", "num_gpu=0", estimator, *sets)
    write_options("demo/test_abair_three.yml", checkout / "test.yml", *overrides)
    done = installed.run("basicsr/test.py", "-opt", "test.yml", cwd=checkout, PYTHONPATH=str(checkout))
    log = done.stdout + done.stderr
    soft = [float(value) for value in re.findall(r"# psnr: ([\d.]+)", log)]
    assert len(soft) == len(FIRST)
    assert len(list((checkout / "results/demo_test_abair_three/visualization/rain").glob("*_soft.png"))) == 21

    results = {"soft": soft, **{mode: score(checkout, mode) for mode in ("none", "average", "oracle")}}
    means = {mode: sum(values) / len(values) for mode, values in results.items()}
    for index, name in enumerate(FIRST):
        assert results["oracle"][index] > results["none"][index], f"the adapter of {name} is no better: {results}"
    assert means["soft"] >= means["average"], results
    assert means["soft"] > means["none"], results


def score(checkout, mode: str) -> list[float]:
    """Return the PSNR on each test set of ``test.yml`` in one mode."""
    import basicsr_plugins
    from basicsr_plugins.core.registration import lookup
    from basicsr_plugins.core.safe_yaml import load_yaml

    basicsr_plugins.register()
    options = plain(load_yaml(checkout / "test.yml"))
    here = {key: str(checkout / path) for key, path in options["path"].items()}
    blend = {**options["blend"], "mode": mode}
    blend["adapters"] = {name: str(checkout / folder) for name, folder in blend["adapters"].items()}
    frame = {"dist": False, "rank": 0, "world_size": 1, "is_train": False}
    model = lookup("model", "AdapterBlendModel")({**options, **frame, "path": here, "blend": blend})
    for dataset in options["datasets"].values():
        opt = {**dataset, "phase": "test", "scale": 1, "dataroot_gt": str(checkout / dataset["dataroot_gt"])}
        loader = torch.utils.data.DataLoader(lookup("dataset", dataset["type"])(opt))
        model.nondist_validation(loader, mode, None, save_img=False)
    return [model.results[dataset["name"]]["psnr"] for dataset in options["datasets"].values()]


def entry_of(name: str, label: int) -> str:
    return degradations([name])[:-2] + f", label: {label}}}]"
