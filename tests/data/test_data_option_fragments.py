"""Every fragment in options/data parses, and pairs the names that its data set is published with."""

from pathlib import Path

import pytest
import yaml

import basicsr_plugins
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.data.loader_options import parse_dataset
from basicsr_plugins.data.survey_options import survey_datasets

FOLDER = Path(__file__).parents[2] / "options" / "data"
FRAGMENTS = sorted(FOLDER.glob("*.yml"))
#: Fragment -> section -> published file names (degraded, clean). Sections left out have equal names.
NAMES = {
    "rain100l": {"train": ("rain-1.png", "norain-1.png")},
    "rain100h": {"train": ("rain-1.png", "norain-1.png"), "val": ("rain-001.png", "norain-001.png")},
    "rain200l": {"train": ("norain-7x2.png", "norain-7.png"), "val": ("norain-7x2.png", "norain-7.png")},
    "rain200h": {"train": ("norain-7x2.png", "norain-7.png"), "val": ("norain-7x2.png", "norain-7.png")},
    "spa": {"val": ("000.png", "000gt.png")},
    "dpdd": {"train": ("1P0A0917.png", "1P0A0916.png"), "val": ("1P0A0917.png", "1P0A0916.png")},
    "ddn": {"train": ("3_14.jpg", "3.jpg"), "val": ("901_1.jpg", "901.jpg")},
    "outdoor_rain": {"train": ("im_0001_s80_a04.png", "im_0001.png"), "val": ("im_0001_s80_a04.png", "im_0001.png")},
    "reside_ots": {"train": ("part1/0025_0.8_0.04.jpg", "0025.jpg")},
    "reside_its": {"train": ("1_1_0.90179.png", "1.png")},
    "reside_sots": {"val_1": ("0001_0.8_0.2.jpg", "0001.png"), "val_2": ("1400_1.png", "1400.png")},
    "gopro": {"train": ("GOPR0372_07_00/blur/000047.png", "GOPR0372_07_00/sharp/000047.png")},
    "lol_v2": {"train": ("low00690.png", "normal00690.png"), "val_1": ("low00001.png", "normal00001.png")},
}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    basicsr_plugins.register()


def sections(path):
    return yaml.safe_load(path.read_text(encoding="utf-8")).items()


def test_the_sets_that_were_promised_are_there():
    names = {path.stem for path in FRAGMENTS}
    assert names >= {
        "rain13k", "rain100l", "rain100h", "rain200l", "rain200h", "ddn", "did", "spa", "outdoor_rain", "reside_ots",
        "reside_its", "reside_sots", "reside_6k", "bsd400_wed", "denoising_test", "gopro", "hide", "realblur", "dpdd",
        "lol_v1", "lol_v2", "snow100k", "csd", "cdd11", "mix_3d", "mix_5d", "mix_10d",
    }  # fmt: skip


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_a_fragment_parses_and_names_its_labels(path):
    for key, section in sections(path):
        kind = lookup("dataset", section["type"])
        options, _ = parse_dataset(kind.Options, section, f"datasets.{key}")
        assert options.name
        assert kind.plan(section, f"datasets.{key}").labels >= 1


@pytest.mark.parametrize(("name", "labels"), [("mix_3d", 3), ("mix_5d", 5), ("mix_10d", 10), ("cdd11", 11)])
def test_mixes_have_one_label_per_task(name, labels):
    section = dict(sections(FOLDER / f"{name}.yml"))["train"]
    assert lookup("dataset", section["type"]).plan(section, "datasets.train").labels == labels


@pytest.mark.parametrize("path", [path for path in FRAGMENTS if "mix" not in path.stem], ids=lambda path: path.stem)
def test_a_fragment_pairs_the_published_names(path, tmp_path, image_writer):
    moved = {}
    for key, section in sections(path):
        section = relocate(section, tmp_path)
        for item in section.get("children", {"": section}).values():
            make_example(item, NAMES.get(path.stem, {}).get(key, ("1.png", "1.png")), image_writer)
        moved[key] = section
    for survey in survey_datasets({"datasets": moved}):
        assert survey.error == ""
        assert len(survey.samples) == 1, survey.where
        assert not survey.missing
        assert not survey.unused
        assert survey.expected is None or survey.expected > 1


def relocate(value, root):
    """Return options whose roots lie below ``root``."""
    if isinstance(value, dict):
        return {
            key: str(root / item) if key.startswith("dataroot") or key == "pair_list" else relocate(item, root)
            for key, item in value.items()
        }
    return value


def make_example(options, names, write):
    lq, gt = names
    root = Path(options.get("dataroot_lq", options.get("dataroot_gt")))
    rule = options.get("pair", "same")
    if rule == "txtlist":
        write(root / "input.png")
        write(root / "clean.png")
        Path(options["pair_list"]).write_text("input.png clean.png\n", encoding="utf-8")
        return
    write(root / lq, 130, 130)
    if rule != "concat" and options["type"] == "PairedRuleDataset":
        write(Path(options.get("dataroot_gt", root)) / gt, 130, 130)
