"""Lists of every format: names with spaces, marks, comments, absolute and Windows paths."""

import json

import pytest

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.data.files import image_files, listed_files, lmdb_keys
from basicsr_plugins.data.image_store import open_store
from basicsr_plugins.data.lists import listed_name
from basicsr_plugins.data.paired_rule_dataset import PairedRuleDataset

NAMES = ["a.png", "my photo.png", "sub/b c.png", "d  e.png", "photo (1).png", "é.png"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]


@pytest.fixture
def halves(tmp_path, image_writer):
    for half in ("lq", "gt"):
        for name in NAMES:
            image_writer(tmp_path / half / name)
    return tmp_path


def listed(root, text, encoding="utf-8"):
    (root / "list.txt").write_text(text, encoding=encoding)
    files = listed_files(root / "gt", str(root / "list.txt"), "x")
    return [file.relative_to(root / "gt").as_posix() for file in files]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "form", ["{}", "{} (140,150,3)", "{} (140, 150, 3) 1", '"{}"', "/{}", "{} 17", "  {}\t", "{root}/gt/{}"]
)
def test_every_form_of_a_meta_file(halves, form, encoding):
    lines = [form.format(name, root=halves) for name in NAMES]
    text = "# a comment\r\n\r\n" + "\r\n".join(lines) + "\r\n\r\n"
    assert listed(halves, text, encoding) == NAMES


def test_windows_paths(halves):
    assert listed(halves, "sub\\b c.png (140,150,3)\n") == ["sub/b c.png"]


def test_what_is_missing_is_named_without_its_shape(halves):
    with pytest.raises(DataError, match=r"1 of 2 files .* are not in .*: no such.png\."):
        listed(halves, "a.png\nno such.png (1,2,3)")
    with pytest.raises(DataError, match="names no image"):
        listed(halves, "# nothing\n")
    (halves / "list.txt").write_bytes(b"\xe9.png")
    with pytest.raises(DataError, match="no text in UTF-8"):
        listed_files(halves / "gt", str(halves / "list.txt"), "x")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("order", ["gt_lq", "lq_gt"])
@pytest.mark.parametrize(
    "form",
    ["{gt} {lq}", "{gt}\t{lq}", "{gt}   {lq}", '"{gt}" "{lq}"', "/{gt} /{lq}", "{gt} {lq} 0.5",
     "{root}/gt/{gt} {root}/lq/{lq}"]
)  # fmt: skip
def test_every_form_of_a_pair_list(halves, form, order, encoding):
    lines = [form.format(gt=name, lq=name, root=halves) for name in NAMES]
    if order == "lq_gt":
        lines = [line.replace("/gt/", "/x/").replace("/lq/", "/gt/").replace("/x/", "/lq/") for line in lines]
    (halves / "pairs.txt").write_text("# gt lq\n" + "\n".join(lines), encoding=encoding)
    opt = {
        "dataroot_lq": str(halves / "lq"), "dataroot_gt": str(halves / "gt"), "pair": "txtlist", "phase": "val",
        "pair_list": str(halves / "pairs.txt"), "list_order": order,
    }  # fmt: skip
    dataset = PairedRuleDataset(opt)
    for half in ("lq", "gt"):
        assert [path[len(str(halves / half)) + 1 :] for path in getattr(dataset, half).paths] == NAMES


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_lists(halves, encoding):
    entries = [{"image_path": name.replace("/", "\\"), "target_path": f"/{name}"} for name in NAMES]
    (halves / "pairs.json").write_text(json.dumps(entries), encoding=encoding)
    opt = {
        "dataroot_lq": str(halves / "lq"), "dataroot_gt": str(halves / "gt"), "pair": "json", "phase": "val",
        "pair_list": str(halves / "pairs.json"),
    }  # fmt: skip
    assert len(PairedRuleDataset(opt)) == len(NAMES)


def test_the_list_inside_an_lmdb(tmp_path):
    (tmp_path / "x.lmdb").mkdir()
    (tmp_path / "x.lmdb" / "meta_info.txt").write_text("my photo.png (140,150,3) 1\nb.png (7,8) 1\nc.png 1\n")
    assert lmdb_keys(tmp_path / "x.lmdb", "x") == {"my photo": (140, 150), "b": (7, 8), "c": None}


def test_a_shape_is_only_a_shape_at_the_end():
    assert listed_name("photo (1,2).png (3,4,1)") == ("photo (1,2).png", (3, 4))
    assert listed_name("photo (1,2).png") == ("photo (1,2).png", None)


@pytest.mark.parametrize(
    "folder", [".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "sub/.hidden"]
)
def test_folders_of_systems_are_passed_over(halves, image_writer, folder):
    image_writer(halves / "gt" / folder / "a-checkpoint.png")
    assert len(image_files(halves / "gt", "x", recursive=True)) == len(NAMES)
    assert len(open_store(str(halves / "gt"), "x", recursive=True)) == len(NAMES)


def test_a_clean_image_with_two_endings_is_refused(halves, image_writer):
    image_writer(halves / "gt" / "a.jpg")
    opt = {"dataroot_lq": str(halves / "lq"), "dataroot_gt": str(halves / "gt"), "phase": "val"}
    assert len(PairedRuleDataset({**opt, "pair": "same"})) == 5  # the ending decides
    with pytest.raises(DataError, match=r"1 degraded image\(s\) have two clean ones .*gt/a\.jpg or .*gt/a\.png"):
        PairedRuleDataset({**opt, "pair": "same_stem", "unpaired": "skip"})
    (halves / "lq" / "a.png").unlink()  # nobody asks for it any more
    assert len(PairedRuleDataset({**opt, "pair": "same_stem"})) == 4
