"""Every section of every shipped option file pairs the names that its data set is published with."""

from pathlib import Path

import pytest

from basicsr_plugins.core.safe_yaml import load_yaml
from basicsr_plugins.data.loader_options import parse_dataset
from basicsr_plugins.data.paired_rule_dataset import PairedRuleDataset, find_pairs

OPTIONS = Path(__file__).parents[2] / "options"
#: Beginning of dataroot_lq -> two published pairs (degraded, clean), as they lie below the two roots. All others of the
#: shipped files are published with equal names.
PUBLISHED = {
    "Rain100L/train": (("rain-1.png", "norain-1.png"), ("rain-10.png", "norain-10.png")),
    "Rain100H/": (("rain-001.png", "norain-001.png"), ("rain-002.png", "norain-002.png")),
    "Rain200": (("norain-1x2.png", "norain-1.png"), ("norain-12x2.png", "norain-12.png")),
    "SPA/test": (("000.png", "000gt.png"), ("001.png", "001gt.png")),
    "SPA/train": (("rain/1.png", "gt/1.png"), ("rain/2.png", "gt/2.png")),
    "DDN/": (("3_14.jpg", "3.jpg"), ("31_4.jpg", "31.jpg")),
    "Outdoor-Rain/": (("im_0001_s80_a04.png", "im_0001.png"), ("im_0002_s80_a05.png", "im_0002.png")),
    "RESIDE/OTS/": (("part1/0025_0.8_0.04.jpg", "0025.jpg"), ("part2/0125_1_0.2.jpg", "0125.jpg")),
    "RESIDE/OTS_2061/": (("0025_0.8_0.04.jpg", "0025.jpg"), ("0125_1_0.2.jpg", "0125.jpg")),
    "RESIDE/ITS/": (("1_1_0.90179.png", "1.png"), ("11_2_0.74031.png", "11.png")),
    "RESIDE/SOTS/outdoor/": (("0001_0.8_0.2.jpg", "0001.png"), ("0002_0.9_0.16.jpg", "0002.png")),
    "RESIDE/SOTS/indoor/": (("1400_1.png", "1400.png"), ("1401_10.png", "1401.png")),
    "NH-HAZE": (("01_hazy.png", "01_GT.png"), ("02_hazy.png", "02_GT.png")),
    "GoPro/train": (
        ("GOPR0372_07_00/blur/000047.png", "GOPR0372_07_00/sharp/000047.png"),
        ("GOPR0384_11_00/blur/000047.png", "GOPR0384_11_00/sharp/000047.png"),
    ),
    "DPDD/": (("1P0A0917.png", "1P0A0916.png"), ("1P0A0933.png", "1P0A0932.png")),
    "LOLv2/Real_captured/": (("low00690.png", "normal00690.png"), ("low00691.png", "normal00691.png")),
    "LOLv2/Synthetic/": (("r000da54ft.png", "r000da54ft.png"), ("r1.png", "r1.png")),
}
EQUAL = (("1.png", "1.png"), ("10.png", "10.png"))


def sections(value, where=""):
    if isinstance(value, dict):
        if value.get("type") == "PairedRuleDataset":
            yield where, value
        for key, item in value.items():
            yield from sections(item, f"{where}.{key}")


def shipped():
    """Return each distinct section once, with the files that hold it."""
    found = {}
    for path in sorted(OPTIONS.rglob("*.yml")):
        for _, section in sections(load_yaml(path)):
            if "datasets/demo" not in section["dataroot_lq"]:
                kept = ("dataroot_lq", "dataroot_gt", "pair", "pair_list", "list_order", "recursive", "lq_half")
                key = tuple((name, section[name]) for name in kept if name in section)
                found.setdefault(key, []).append(path.relative_to(OPTIONS).as_posix())
    return found


SHIPPED = shipped()


@pytest.mark.parametrize("key", SHIPPED, ids=lambda key: f"{dict(key)['dataroot_lq']}|{dict(key).get('pair', 'same')}")
def test_a_section_pairs_the_published_names(key, tmp_path):
    section = dict(key)
    if section.get("pair") == "concat":
        pytest.skip("one picture holds both halves")
    root = section["dataroot_lq"][len("datasets/") :]
    names = next((names for start, names in PUBLISHED.items() if f"{root}/".startswith(start)), EQUAL)
    moved = {name: str(tmp_path / value) if name.startswith("dataroot") else value for name, value in section.items()}
    lq_root, gt_root = Path(moved["dataroot_lq"]), Path(moved.get("dataroot_gt", moved["dataroot_lq"]))
    for lq, gt in names:
        for path in (lq_root / lq, gt_root / gt):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    if "pair_list" in moved:
        moved["pair_list"] = str(tmp_path / "list.txt")
        columns = names if moved["list_order"] == "lq_gt" else [pair[::-1] for pair in names]
        (tmp_path / "list.txt").write_text("".join(f"{a} {b}\n" for a, b in columns), encoding="utf-8")
    options, where = parse_dataset(PairedRuleDataset.Options, {"type": "PairedRuleDataset", **moved}, "datasets.val")
    pairing = find_pairs(options, where)
    pairs = {(a.relative_to(lq_root).as_posix(), b.relative_to(gt_root).as_posix()) for a, b in pairing.pairs}
    assert pairs == set(names), SHIPPED[key]
    assert not pairing.missing
    assert not pairing.unused


def test_every_published_layout_is_used():
    roots = [dict(key)["dataroot_lq"][len("datasets/") :] + "/" for key in SHIPPED]
    assert [start for start in PUBLISHED if not any(root.startswith(start) for root in roots)] == []
