"""Option files are data: no tag runs code, no key is written twice, overrides are plain."""

from __future__ import annotations

import pytest

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.safe_yaml import apply_overrides, load_yaml


def load(tmp_path, text: str):
    file = tmp_path / "x.yml"
    file.write_text(text)
    return load_yaml(file)


def test_values_of_every_kind_in_their_order(tmp_path):
    options = load(tmp_path, "b: 1\na: !!float 1e-4\nc: [1, x, ~]\nd: {y: true, x: 2.5}\n")
    assert list(options.items()) == [("b", 1), ("a", 1e-4), ("c", [1, "x", None]), ("d", {"y": True, "x": 2.5})]
    assert list(options["d"]) == ["y", "x"]


@pytest.mark.parametrize(
    "tag",
    [
        '!!python/object/apply:os.system ["touch {target}"]',
        "!!python/object/new:subprocess.Popen [[touch, {target}]]",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/object:basicsr_plugins.core.errors.PluginError {{}}",
    ],
)
def test_python_tags_are_refused_and_do_not_run(tmp_path, tag):
    target = tmp_path / "owned"
    with pytest.raises(OptionError, match=r"x\.yml, line 2: .*can run code and are refused"):
        load(tmp_path, f"name: a\nplugins: {tag.format(target=target)}\n")
    assert not target.exists()
    options = {"name": "a"}
    with pytest.raises(OptionError, match="--set"):
        apply_overrides(options, [f"name={tag.format(target=target)}"])
    assert not target.exists()
    assert options == {"name": "a"}


def test_a_key_written_twice(tmp_path):
    with pytest.raises(OptionError, match=r"line 3: the key 'name' is written twice"):
        load(tmp_path, "name: a\nscale: 1\nname: b\n")
    with pytest.raises(OptionError, match="'lr' is written twice"):
        load(tmp_path, "train:\n  lr: 1\n  lr: 2\n")


def test_anchors_and_merges_work(tmp_path):
    options = load(tmp_path, "a: &x {lr: 1, type: Adam}\nb: {<<: *x, lr: 2}\nc: *x\n")
    assert options["b"] == {"lr": 2, "type": "Adam"}
    assert options["c"] == {"lr": 1, "type": "Adam"}
    assert load(tmp_path, "a: {1: one, '1': text}\n")["a"] == {1: "one", "1": "text"}  # a number and a text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "holds list"),
        ("", "holds NoneType"),
        ("a: [1\n", "is not valid YAML"),
        ("a:\n\t- 1", "not valid"),
    ],
)
def test_what_is_no_option_file(tmp_path, text, message):
    with pytest.raises(OptionError, match=message):
        load(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(OptionError, match="cannot be read"):
        load_yaml(tmp_path / "missing.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(OptionError, match="cannot be read"):
        load_yaml(tmp_path / "binary.yml")
    with pytest.raises(OptionError, match="cannot be read"):
        load_yaml(tmp_path)


def test_overrides():
    options = {"train": {"lr": 1, "milestones": [1, 2]}, "path": None, "datasets": {"train": {"degradations": [{}]}}}
    apply_overrides(
        options,
        [
            "train.lr=!!float 1e-4",
            "train.milestones.1=5",
            "train.new=[1, 2]",
            "path.pretrain=a=b.pth",
            "datasets.train.degradations.0.type=Rain",
            "name=~",
        ],
    )
    assert options["train"] == {"lr": 1e-4, "milestones": [1, 5], "new": [1, 2]}
    assert options["path"] == {"pretrain": "a=b.pth"}
    assert options["datasets"]["train"]["degradations"] == [{"type": "Rain"}]
    assert options["name"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lr", "expected KEY"),
        ("=3", "expected KEY"),
        ("train..lr=3", "expected KEY"),
        ("trian.lr=3", "Did you mean 'train'"),
        ("train.lr.x=3", "it has no keys"),
        ("train.lr.x.y=3", "does not lead through a mapping"),
        ("train.milestones.7=3", "no place in a list of 2"),
        ("train.lr=[1", "not valid YAML"),
        ("train.__class__.__init__=3", None),
    ],
)
def test_wrong_overrides(text, message):
    options = {"train": {"lr": 1, "milestones": [1, 2]}}
    if message is None:  # only a key like any other
        apply_overrides(options, [text])
        assert options["train"]["__class__"] == {"__init__": 3}
        return
    with pytest.raises(OptionError, match=message):
        apply_overrides(options, [text])


def test_nesting_without_end_and_values_that_are_none(tmp_path):
    file = tmp_path / "x.yml"
    for text, message in (("a: " + "[" * 3000 + "]" * 3000, "nested too deep"), ("a: 2026-99-99", "not valid YAML")):
        file.write_text(text)
        with pytest.raises(OptionError, match=message):
            load_yaml(file)


def test_the_line_that_registers_under_stock_is_passed_over(tmp_path):
    file = tmp_path / "x.yml"
    file.write_text("plugins: !!python/object/apply:basicsr_plugins.register []\nname: x\n")
    assert load_yaml(file) == {"plugins": None, "name": "x"}
    file.write_text("plugins: !!python/object/apply:os.system [echo]\n")
    with pytest.raises(OptionError, match="can run code and are refused"):
        load_yaml(file)
