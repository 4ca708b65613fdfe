"""What is packed comes back: by the reader here, by BasicSR's own, and whatever the files are called."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from basicsr_plugins.core.errors import CheckpointError, DataError, DependencyError, OptionError
from basicsr_plugins.data import lmdb_writer
from basicsr_plugins.data.image_store import open_store
from basicsr_plugins.data.images import read_image
from basicsr_plugins.data.lmdb_reader import open_lmdb
from basicsr_plugins.data.lmdb_writer import lmdb_key, write_lmdb

ODD = [
    "a.png",
    "a.jpg",
    "0025_0.8_0.04.png",
    "0025_0_8_0_04.png",
    "B c#1%.png",
    "#x.png",
    "café.png",
    "'q'.png",
    "z .png",
]
LMDB = {"io_backend": {"type": "lmdb"}}


def pack(*arguments, **options):
    return write_lmdb(*arguments, **{"workers": 2, "say": lambda text: None, **options})


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture
def odd(tmp_path, image_writer):
    """Return a folder of files with names that lists, stock lmdb and file systems stumble over."""
    for number, name in enumerate(ODD):
        image_writer(tmp_path / "odd" / name, 20 + number, 24, number)
    image_writer(tmp_path / "odd" / "sub" / "a.png", 8, 8)
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "odd" / "deep.png"), deep)
    cv2.imwrite(str(tmp_path / "odd" / "grey.png"), (deep[:, :, 0] >> 8).astype(np.uint8))
    return tmp_path / "odd"


def test_every_image_comes_back_by_the_reader_here(odd, tmp_path):
    report = pack(odd, tmp_path / "o.lmdb", recursive=True)
    store = open_store(str(tmp_path / "o.lmdb"), "x", **LMDB)
    assert report.keys == len(store) == len(ODD) + 3
    files = {entry["key"]: odd / entry["image"] for entry in manifest(tmp_path / "o.lmdb")["images"]}
    assert set(files) == set(store.paths)
    assert set(files.values()) == {path for path in odd.rglob("*") if path.is_file()}
    for position, key in enumerate(store.paths):
        wanted = read_image(files[key])
        assert store.size(position) == wanted.shape[:2]
        assert store.read(position).dtype == wanted.dtype
        assert np.array_equal(store.read(position), wanted), key
    assert sorted(os.listdir(tmp_path / "o.lmdb")) == ["data.mdb", "lock.mdb", "manifest.json", "meta_info.txt"]


STOCK = """
import json, sys
import basicsr_plugins; basicsr_plugins.register()
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils import FileClient
import hashlib, numpy as np
gt, lq = sys.argv[1:]
data = PairedImageDataset({"dataroot_gt": gt, "dataroot_lq": lq, "io_backend": {"type": "lmdb"}, "scale": 1,
                           "phase": "val"})
pixels = {}
for sample in (data[index] for index in range(len(data))):
    for side in ("gt", "lq"):
        rgb = (sample[side].numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
        pixels[f"{side} {sample[side + '_path']}"] = hashlib.sha256(rgb.tobytes()).hexdigest()
client = data.file_client
raw = {f"{side} {path[side + '_path']}": hashlib.sha256(client.get(path[side + "_path"], side)).hexdigest()
       for path in data.paths for side in ("gt", "lq")}
print(json.dumps([pixels, raw]))
"""


def test_every_image_comes_back_by_basicsr(odd, tmp_path, image_writer):
    """As bytes from its FileClient, and as pixels from its PairedImageDataset; it reads 16 bits as 8."""
    (odd / "deep.png").unlink()
    for path in [path for path in odd.rglob("*") if path.is_file()]:
        height, width = read_image(path).shape[:2]
        image_writer(tmp_path / "lq" / path.relative_to(odd), height, width, 99)
    gt, lq = tmp_path / "gt.lmdb", tmp_path / "lq.lmdb"
    report = pack(odd, gt, pair=(tmp_path / "lq", lq), rule="same", recursive=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(gt), str(lq)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pixels, raw = json.loads(done.stdout.splitlines()[-1])
    assert len(pixels) == len(raw) == 2 * report.keys == 2 * (len(ODD) + 2)
    for side, folder, source in (("gt", gt, odd), ("lq", lq, tmp_path / "lq")):
        for entry in manifest(folder)["images"]:
            assert raw[f"{side} {entry['key']}"] == entry["sha256"]
            rgb = np.ascontiguousarray(read_image(source / entry["image"])[:, :, ::-1])
            assert pixels[f"{side} {entry['key']}"] == hashlib.sha256(rgb.tobytes()).hexdigest()


def test_lines_are_those_of_basicsr(photos, tmp_path):
    pack(photos, tmp_path / "p.lmdb", compression=3)
    lines = (tmp_path / "p.lmdb" / "meta_info.txt").read_text().splitlines()
    assert lines[:2] == ["0.png (40,48,3) 3", "1.png (41,50,3) 3"]


@pytest.mark.parametrize("name", ["a.b", "Ä", '"q"', " lead", "end ", "tab\tin", "new\nline", "50%25", "a/b.c", "#"])
def test_a_key_is_plain_and_its_own(name):
    key = lmdb_key(name)
    assert key.isascii()
    assert "." not in key
    assert key == key.strip()
    assert not set(key) & set("#\"'\n\t")
    others = {"a_c", "50%", "lead", "end", "q"}
    assert key not in {lmdb_key(other) for other in others}


def test_the_map_grows(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_writer, "_FIRST_MAP", 1 << 14)
    monkeypatch.setattr(lmdb_writer, "_BATCH", 1 << 12)
    pack(photos, tmp_path / "p.lmdb", compression=0)
    store = open_store(str(tmp_path / "p.lmdb"), "x", **LMDB)
    assert [store.read(number).shape[0] for number in range(5)] == [40, 41, 42, 43, 44]
    assert (tmp_path / "p.lmdb" / "data.mdb").stat().st_size > 1 << 14


def test_what_is_there_is_not_replaced(photos, tmp_path):
    pack(photos, tmp_path / "p.lmdb")
    before = (tmp_path / "p.lmdb" / "data.mdb").read_bytes()
    with pytest.raises(DataError, match=r"p\.lmdb is there already"):
        pack(photos, tmp_path / "p.lmdb")
    with pytest.raises(DataError, match=r"p\.lmdb is there already"):
        pack(photos, tmp_path / "q.lmdb", pair=(photos, tmp_path / "p.lmdb"))
    assert (tmp_path / "p.lmdb" / "data.mdb").read_bytes() == before
    assert not (tmp_path / "q.lmdb").exists()
    for wrong, text in (({"compression": 11}, "--compression"), ({"workers": 0}, "--workers")):
        with pytest.raises(OptionError, match=text):
            pack(photos, tmp_path / "q.lmdb", **wrong)
    with pytest.raises(OptionError, match=r"ends in \.lmdb"):
        pack(photos, tmp_path / "q")
    with pytest.raises(DataError, match="both outputs are"):
        pack(photos, tmp_path / "q.lmdb", pair=(photos, tmp_path / "q.lmdb"))


def test_a_run_that_ends_early_leaves_nothing(photos, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    shutil.copytree(photos, tmp_path / "lq")
    with monkeypatch.context() as patch:
        patch.setattr(lmdb_writer._Writer, "put", stop)
        with pytest.raises(KeyboardInterrupt):
            pack(photos, tmp_path / "p.lmdb", pair=(tmp_path / "lq", tmp_path / "q.lmdb"))
    assert sorted(os.listdir(tmp_path)) == ["lq", "photos"]

    def full(*arguments, **options):
        import lmdb

        raise lmdb.DiskError("No space left on device")

    monkeypatch.setattr(lmdb_writer._Writer, "put", full)
    with pytest.raises(CheckpointError, match=r"p\.lmdb cannot be written: .*No space left"):
        pack(photos, tmp_path / "p.lmdb")
    assert sorted(os.listdir(tmp_path)) == ["lq", "photos"]


KILLED = """
import os, sys
from pathlib import Path
from basicsr_plugins.data import lmdb_writer
lmdb_writer._BATCH = 1
put = lmdb_writer._Writer.put
def counted(self, key, *rest):
    if key == "3":
        os._exit(9)
    put(self, key, *rest)
lmdb_writer._Writer.put = counted
lmdb_writer.write_lmdb(Path(sys.argv[1]), Path(sys.argv[2]), workers=1)
"""


def test_a_kill_leaves_no_lmdb_and_the_next_run_tidies_up(photos, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", KILLED, str(photos), str(tmp_path / "p.lmdb")]
    assert subprocess.run(command, env=environment, check=False).returncode == 9
    assert not (tmp_path / "p.lmdb").exists()
    assert len(os.listdir(tmp_path)) == 2
    pack(photos, tmp_path / "p.lmdb")
    assert sorted(os.listdir(tmp_path)) == ["p.lmdb", "photos"]


def test_broken_files_are_left_out_of_both_sides(photos, tmp_path, image_writer):
    for number in range(5):
        image_writer(tmp_path / "lq" / f"{number}.jpg")
    (tmp_path / "lq" / "1.jpg").write_bytes(b"no image")
    (tmp_path / "lq" / "3.jpg").write_bytes((tmp_path / "lq" / "3.jpg").read_bytes()[:-200])  # some OpenCV fill it up
    report = pack(photos, tmp_path / "g.lmdb", pair=(tmp_path / "lq", tmp_path / "l.lmdb"))
    assert (report.keys, len(report.failed)) == (3, 2)
    assert any("3.jpg: is cut off before its end" in text for text in report.failed)
    for name in ("g.lmdb", "l.lmdb"):
        assert open_store(str(tmp_path / name), "x", **LMDB).paths == ["0", "2", "4"]
    for path in photos.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="could be read"):
        pack(photos, tmp_path / "n.lmdb")
    assert not (tmp_path / "n.lmdb").exists()


def test_transparency_is_counted(tmp_path):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((8, 8, 4), np.uint8))
    assert pack(tmp_path / "in", tmp_path / "a.lmdb").alpha == 1


def test_a_missing_package_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DependencyError, match="pip install lmdb"):
        pack(photos, tmp_path / "p.lmdb")
    with pytest.raises(DependencyError, match="pip install lmdb"):
        open_lmdb(str(tmp_path))


def test_two_stores_of_one_process_read_one_lmdb(photos, tmp_path):
    pack(photos, tmp_path / "p.lmdb")
    first, second = (open_store(str(tmp_path / "p.lmdb"), "x", **LMDB) for _ in range(2))
    assert np.array_equal(first.read(0), second.read(0))
    del first
    assert second.read(1).shape == (41, 50, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the lmdb cannot be opened"):
        open_lmdb(str(tmp_path / "empty"))
