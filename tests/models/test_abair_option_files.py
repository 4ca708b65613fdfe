"""Every ABAIR option file holds what its recipe takes, and the published and the demo set are complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import basicsr_plugins
from basicsr_plugins.core.options import check_call, parse
from basicsr_plugins.core.registration import lookup, provided
from basicsr_plugins.core.safe_yaml import load_yaml
from basicsr_plugins.data.loader_options import parse_dataset
from basicsr_plugins.degradations import build_degradation
from basicsr_plugins.models.parts.mixture_labels import MixtureLabels
from basicsr_plugins.training.settings import LoggerSettings, ValSettings

ROOT = Path(__file__).parents[2] / "options"
FILES = sorted([*ROOT.glob("*abair*.yml"), *ROOT.glob("demo/*abair*.yml")])
TASKS = ("rain", "haze", "noise", "blur", "low_light", "jpeg", "snow", "bit_depth")
NAMES = {
    "abair_pretrain",
    *(f"abair_adapter_{task}" for task in TASKS),
    *(f"abair_blend_{count}" for count in (3, 5, 8)),
    *(f"test_abair_{table}" for table in ("five", "three", "unseen_data", "unseen_types", "mixed")),
}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    basicsr_plugins.register()


def test_all_files_are_there_in_both_sizes():
    assert {path.stem for path in ROOT.glob("*abair*.yml")} == NAMES
    assert {path.stem for path in (ROOT / "demo").glob("*abair*.yml")} == NAMES


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_file_fits_its_recipe(path):
    options = load_yaml(path)
    model = provided("model")[options["model_type"]]
    if "train" in options:
        train = parse(model.Settings, options["train"], "train")
        assert train.scheduler["T_max"] == train.total_iter
        parse(LoggerSettings, options["logger"], "logger")
    parse(ValSettings, options["val"], "val")
    sections = {key: parse(schema, options[key], key) for key, schema in getattr(model, "sections", {}).items()}
    network = dict(options["network_g"])
    with torch.device("meta"):
        lookup("arch", network.pop("type"))(**network)
    for key, dataset in options["datasets"].items():
        kind = lookup("dataset", dataset["type"])
        parse_dataset(kind.Options, dataset, f"datasets.{key}")
        for entry in dataset.get("degradations", []):
            build_degradation({k: v for k, v in entry.items() if k not in ("label", "name", "weight")}, key)
    if "blend" in sections:
        _check_blend(options, sections["blend"])


def _check_blend(options, blend):
    names = [*blend.adapters, *blend.add]
    labels = MixtureLabels(blend.labels or names, names)
    estimator = dict(options["network_e"])
    check_call(lookup("arch", estimator.pop("type")), {**estimator, "classes": names}, "network_e")
    for name, folder in {**blend.adapters, **blend.add}.items():
        writer = Path(folder).parts[1].removeprefix("demo_")
        assert writer == f"abair_adapter_{name}"
        assert f"{writer}" in NAMES
    for dataset in options["datasets"].values():
        entries = dataset.get("degradations", [])
        used = [entry.get("label", position) for position, entry in enumerate(entries)] or [dataset["label"]]
        assert max(used) < len(labels)
    if "train" in options:
        assert len(options["datasets"]["train"]["degradations"]) == len(labels)
