"""The naming rules, each with the names of the public data set that needs it."""

import json
from pathlib import Path

import pytest

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.data.pairing import check_rule, fitting_rule, pair_by_name, pair_from_list


def touch(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def pairs(tmp_path, rule, lq, gt, recursive=False):
    touch(tmp_path / "lq", lq)
    touch(tmp_path / "gt", gt)
    found = pair_by_name(tmp_path / "lq", tmp_path / "gt", rule, "datasets.train", recursive)
    root = tmp_path / "lq", tmp_path / "gt"
    return {a.relative_to(root[0]).as_posix(): b.relative_to(root[1]).as_posix() for a, b in found.pairs}, found


@pytest.mark.parametrize(
    ("rule", "lq", "gt"),
    [
        ("same", "2.png", "2.png"),  # LOL, Rain13K
        ("same_stem", "HIDE_1.png", "HIDE_1.jpg"),
        ("prefix:1", "0001_0.8_0.2.jpg", "0001.png"),  # SOTS outdoor
        ("prefix:1", "0025_0.8_0.04.jpg", "0025.jpg"),  # OTS
        ("prefix:1", "1400_1.png", "1400.png"),  # SOTS indoor
        ("prefix:1", "1_1_0.90179.png", "1.png"),  # ITS
        ("prefix:1", "3_14.jpg", "3.jpg"),  # DDN
        ("prefix:2", "im_0001_s80_a04.png", "im_0001.png"),  # Outdoor-Rain
        ("replace:rain-->norain-", "rain-7.png", "norain-7.png"),  # Rain100L
        ("replace:x2->", "norain-7x2.png", "norain-7.png"),  # Rain200H, Rain200L
        ("replace:rain-->norain-,x2->", "rain-7x2.png", "norain-7.png"),  # a renamed copy of them
        ("append:gt", "000.png", "000gt.png"),  # SPA-Data's test set
        ("order", "1P0A0917.png", "1P0A0916.png"),  # DPDD
        ("replace:rain->clean", "12_rain.png", "12_clean.png"),  # Raindrop
        ("replace:low->normal", "low00690.png", "normal00690.png"),  # LOL-v2
        ("replace:rd-->norain-", "rd-3.png", "norain-3.png"),  # RainDS
        ("same_stem", "img.PNG", "img.JPG"),
        ("same_stem", "a.b.png", "a.b.tif"),
    ],
)
def test_each_rule_finds_the_clean_file(tmp_path, rule, lq, gt):
    found, pairing = pairs(tmp_path, rule, [lq], [gt])
    assert found == {lq: gt}
    assert not pairing.missing
    assert not pairing.unused


def test_many_hazy_images_share_one_clean_one(tmp_path):
    found, _ = pairs(tmp_path, "prefix:1", ["1_0.8_0.1.png", "1_0.9_0.1.png", "10_0.8_0.1.png"], ["1.png", "10.png"])
    assert found == {"1_0.8_0.1.png": "1.png", "1_0.9_0.1.png": "1.png", "10_0.8_0.1.png": "10.png"}


def test_sequences_in_sub_folders(tmp_path):
    found, _ = pairs(tmp_path, "same", ["000/1.png", "001/1.png"], ["000/1.png", "001/1.png"], recursive=True)
    assert found == {"000/1.png": "000/1.png", "001/1.png": "001/1.png"}


def test_one_flat_folder_holds_both_halves(tmp_path):
    touch(tmp_path, ["rain-1.png", "norain-1.png", "rain-2.png", "norain-2.png", "rain-3.png", "norain-9.png"])
    found = pair_by_name(tmp_path, tmp_path, "replace:rain-->norain-", "x")
    assert [(a.name, b.name) for a, b in found.pairs] == [
        ("rain-1.png", "norain-1.png"),
        ("rain-2.png", "norain-2.png"),
    ]
    assert len(found.missing) == 1
    assert "rain-3.png (looked for norain-3" in found.missing[0]
    assert [path.name for path in found.unused] == ["norain-9.png"]


def test_one_tree_with_blurred_and_sharp_folders(tmp_path):
    touch(tmp_path, ["s1/blur/1.png", "s1/sharp/1.png", "s1/blur_gamma/1.png", "s2/blur/1.png", "s2/sharp/1.png"])
    found = pair_by_name(tmp_path, tmp_path, "folder:blur->sharp", "x")
    names = [(a.relative_to(tmp_path).as_posix(), b.relative_to(tmp_path).as_posix()) for a, b in found.pairs]
    assert names == [("s1/blur/1.png", "s1/sharp/1.png"), ("s2/blur/1.png", "s2/sharp/1.png")]
    assert not found.missing
    assert not found.unused


def test_unpaired_and_unused_files_are_listed(tmp_path):
    found, pairing = pairs(tmp_path, "same", ["1.png", "2.png"], ["1.png", "3.png"])
    assert found == {"1.png": "1.png"}
    assert len(pairing.missing) == 1
    assert "2.png (looked for 2.png in" in pairing.missing[0]
    assert [path.name for path in pairing.unused] == ["3.png"]


def test_lists_in_both_orders_and_json(tmp_path):
    touch(tmp_path, ["gt/1.png", "lq/a.png", "gt/2.png", "lq/b.png"])
    (tmp_path / "list.txt").write_text(
        "gt/1.png lq/a.png\n\n/gt/2.png /lq/b.png\ngt/3.png lq/c.png\n", encoding="utf-8"
    )
    found = pair_from_list("txtlist", tmp_path / "list.txt", tmp_path, tmp_path, "gt_lq", "x")
    assert [(a.name, b.name) for a, b in found.pairs] == [("a.png", "1.png"), ("b.png", "2.png")]
    assert len(found.missing) == 1
    swapped = pair_from_list("txtlist", tmp_path / "list.txt", tmp_path, tmp_path, "lq_gt", "x")
    assert [(a.name, b.name) for a, b in swapped.pairs] == [("1.png", "a.png"), ("2.png", "b.png")]
    entries = [{"image_path": "lq/a.png", "target_path": "gt/1.png", "type": "rain"}]
    (tmp_path / "list.json").write_text(json.dumps(entries), encoding="utf-8")
    found = pair_from_list("json", tmp_path / "list.json", tmp_path, tmp_path, "gt_lq", "x")
    assert [(a.name, b.name) for a, b in found.pairs] == [("a.png", "1.png")]


def test_broken_lists_say_where(tmp_path):
    with pytest.raises(DataError, match=r"x\.pair_list: there is no file"):
        pair_from_list("txtlist", Path("none.txt"), tmp_path, tmp_path, "gt_lq", "x")
    (tmp_path / "list.txt").write_text("a.png b.png\nonly_one.png\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2 of .*list\.txt has one column.*only_one\.png"):
        pair_from_list("txtlist", tmp_path / "list.txt", tmp_path, tmp_path, "gt_lq", "x")
    (tmp_path / "list.json").write_text('[{"image": 1}]', encoding="utf-8")
    with pytest.raises(DataError, match="is not a JSON list of"):
        pair_from_list("json", tmp_path / "list.json", tmp_path, tmp_path, "gt_lq", "x")


def test_order_pairs_the_nth_with_the_nth_in_each_folder(tmp_path):
    lq = ["a/im9.png", "a/im10.png", "b/1P0A0917.png", "b/1P0A1003.png"]
    gt = ["a/x8.png", "a/x11.png", "b/1P0A0916.png", "b/1P0A1001.png"]
    found, pairing = pairs(tmp_path, "order", lq, gt, recursive=True)
    assert found == dict(zip(lq, gt))
    assert not pairing.missing
    assert not pairing.unused


def test_order_refuses_a_gap_and_one_folder_of_both(tmp_path):
    touch(tmp_path / "lq", ["1.png", "2.png"])
    touch(tmp_path / "gt", ["7.png"])
    with pytest.raises(DataError, match=r"x\.pair: the rule 'order' needs as many .*lq has 2 and .*gt has 1"):
        pair_by_name(tmp_path / "lq", tmp_path / "gt", "order", "x")
    with pytest.raises(OptionError, match=r"x\.dataroot_gt: the rule 'order' needs a folder"):
        pair_by_name(tmp_path / "lq", tmp_path / "lq", "order", "x")


def test_one_flat_folder_with_an_ending(tmp_path):
    touch(tmp_path, ["000.png", "000gt.png", "001.png", "001gt.png"])
    found = pair_by_name(tmp_path, tmp_path, "append:gt", "x")
    assert [(a.name, b.name) for a, b in found.pairs] == [("000.png", "000gt.png"), ("001.png", "001gt.png")]
    assert not found.missing


@pytest.mark.parametrize(
    ("lq", "gt", "rule"),
    [
        ("norain-1x2.png", "norain-1.png", "replace:x2->"),
        ("000.png", "000gt.png", "append:gt"),
        ("0001_0.8_0.2.jpg", "0001.png", "prefix:1"),
        ("1.jpg", "1.png", "same_stem"),
        ("a.png", "b.png", None),
    ],
)
def test_the_rule_that_fits_is_found_for_the_message(tmp_path, lq, gt, rule):
    touch(tmp_path / "lq", [lq])
    touch(tmp_path / "gt", [gt])
    assert fitting_rule(tmp_path / "lq", tmp_path / "gt", "x") == rule


@pytest.mark.parametrize(
    "rule",
    ["sam", "prefix", "prefix:0", "prefix:x", "replace:a", "replace:->b", "same:1", "folder", "append", "order:1"],
)
def test_wrong_rules_are_explained(rule):
    with pytest.raises(
        OptionError, match=r"x\.pair: (unknown pairing rule|expected '(prefix|replace|same|folder|append|order))"
    ):
        check_rule(rule, "x.pair")
