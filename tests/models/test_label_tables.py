"""What a data set's labels mean: mixtures, clean images, and the names in the shipped option files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import basicsr_plugins
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.core.safe_yaml import load_yaml
from basicsr_plugins.models.parts.mixture_labels import MixtureLabels
from basicsr_plugins.models.parts.primitive_labels import PrimitiveLabels

OPTIONS = Path(__file__).parents[2] / "options"


@pytest.fixture(scope="module", autouse=True)
def _registered():
    basicsr_plugins.register()


@pytest.mark.parametrize("label", ["clean", ["clean"], []])
def test_a_clean_image_is_a_class_of_its_own(label):
    labels = MixtureLabels(["rain", label, ["rain", "haze"]], ["rain", "haze", "clean"])
    assert labels.table.tolist() == [[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0]]
    assert labels.name(1) == "clean"
    assert labels.single == {0: 0, 1: 2}


@pytest.mark.parametrize("label", ["clean", []])
def test_a_clean_label_without_its_class_says_where_to_add_it(label):
    with pytest.raises(OptionError, match=r"blend\.labels\[1\]: .*network_e\.classes: \[<adapters>, clean\]"):
        MixtureLabels(["rain", label], ["rain", "haze"])


@pytest.mark.parametrize("table", [lambda labels: MixtureLabels(labels, ["rain", "clean"]), PrimitiveLabels])
def test_a_mixture_holds_no_clean(table):
    with pytest.raises(OptionError, match=r"\[0\]: rain & clean is not a mixture"):
        table([["rain", "clean"]])


def test_primitives_of_a_clean_image_are_all_no():
    labels = PrimitiveLabels(["rain", [], ["rain", "haze"]])
    assert labels.targets(torch.tensor([0, 1, 2])).tolist() == [[1, 0], [0, 0], [1, 1]]
    assert labels.name(1) == "clean"


@pytest.mark.parametrize("path", sorted(OPTIONS.glob("**/*abair*.yml")), ids=lambda path: path.stem)
def test_labels_of_the_shipped_files_are_named_after_degradations(path):
    for key, section in load_yaml(path)["datasets"].items():
        kind = lookup("dataset", section["type"])
        if key == "train" or "Degradation" in section["type"]:
            names = kind.plan(section, f"datasets.{key}").label_names.values()
            assert not {"random_choice", "sequence"} & set(names), names
