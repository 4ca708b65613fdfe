"""One truth about an image: size, bits and readability are those of what the reader returns."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from basicsr_plugins.core.errors import DataError
from basicsr_plugins.data import images
from basicsr_plugins.data.image_header import read_header
from basicsr_plugins.data.image_store import open_store
from basicsr_plugins.data.images import bytes_per_value, image_problem, image_size, read_image
from basicsr_plugins.data.paired_rule_dataset import PairedRuleDataset
from basicsr_plugins.data.patches import choose_patch
from basicsr_plugins.data.rain_synthesis_dataset import RainSynthesisDataset, TileStore
from basicsr_plugins.data.ram_cache import RamCache
from basicsr_plugins.data.survey import inspect

#: Formats that carry an orientation, and how Pillow is asked to write it.
TURNED = {"png": "exif", "jpg": "exif", "webp": "exif", "tif": "tiffinfo"}
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def turned(folder, kind, orientation, pixels=PIXELS, name="a"):
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / f"{name}.{kind}"
    Image.fromarray(pixels).save(path, **{TURNED[kind]: {274: orientation} if kind == "tif" else exif})
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", TURNED)
def test_the_size_is_that_of_what_is_read(tmp_path, kind, orientation, monkeypatch):
    path = turned(tmp_path, kind, orientation)
    size = read_image(path).shape[:2]
    assert size == ((56, 40) if orientation >= 5 else (40, 56))
    assert image_size(path) == size
    assert image_problem(path) == image_problem(path, full=True) == ""
    store = open_store(str(tmp_path), "x")
    assert store.size(0) == size
    cache = RamCache(store, 1.0)
    assert cache.size(0) == cache.read(0).shape[:2] == size
    assert cache._memory.array[0] == 1  # it is kept
    if kind != "tif":  # and nothing was decoded to know it
        monkeypatch.setattr(images, "read_image", lambda path: 1 / 0)
        assert image_size(path) == size


def test_every_kind_of_header(tmp_path):
    for kind, values in (
        ("png", np.uint8), ("png", np.uint16), ("jpg", np.uint8), ("webp", np.uint8), ("tif", np.uint8),
        ("tif", np.uint16), ("bmp", np.uint8), ("ppm", np.uint8), ("ppm", np.uint16), ("pgm", np.uint8),
    ):  # fmt: skip
        path = tmp_path / f"a.{kind}"
        pixels = PIXELS[:, :, 0] if kind == "pgm" else PIXELS
        assert cv2.imwrite(str(path), pixels.astype(values))
        assert image_size(path) == (40, 56), kind
        assert bytes_per_value(path) == read_image(path).dtype.itemsize == np.dtype(values).itemsize, kind
        assert image_problem(path) == image_problem(path, full=True) == "", kind
    for name, options in (
        ("lossy", {"quality": 50}),
        ("lossless", {"lossless": True}),
        ("prog", {"progressive": True}),
    ):
        path = tmp_path / f"{name}.{'jpg' if name == 'prog' else 'webp'}"
        Image.fromarray(PIXELS).save(path, **options)
        assert image_size(path) == read_image(path).shape[:2] == (40, 56)


def test_exif_that_only_a_decoder_understands(tmp_path):
    """An eXIf chunk behind the pixels, two EXIF blocks, a block of nonsense, a tag of another type."""
    data = turned(tmp_path, "png", 6).read_bytes()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + struct.unpack(">I", data[start : start + 4])[0]]
    end = data.index(b"IEND") - 4
    late = data[:start] + data[start + len(chunk) : end] + chunk + data[end:]
    jpeg = turned(tmp_path, "jpg", 6).read_bytes()
    first = jpeg.index(b"\xff\xe1")
    block = jpeg[first : first + 2 + struct.unpack(">H", jpeg[first + 2 : first + 4])[0]]
    twice = jpeg[:first] + block.replace(
        b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06", b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x01"
    )
    twice += jpeg[first:]
    nonsense = jpeg.replace(b"Exif\x00\x00MM", b"Exif\x00\x00XX")
    other_type = jpeg.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x04")
    beyond = jpeg.replace(b"\x00\x01\x00\x06\x00", b"\x00\x01\x00\x09\x00")
    for name, content in (("late.png", late), ("twice.jpg", twice), ("nonsense.jpg", nonsense),
                          ("other.jpg", other_type), ("beyond.jpg", beyond)):  # fmt: skip
        path = tmp_path / name
        path.write_bytes(content)
        assert image_size(path) == read_image(path).shape[:2], name


def test_turned_pairs_tiles_and_checks_agree(tmp_path):
    """A photograph on its side and its upright copy of equal pixels are a pair; tiles are cut from what is read."""
    turned(tmp_path / "lq", "png", 6)
    Image.fromarray(np.rot90(PIXELS, 3)).save(tmp_path / "a.png")
    (tmp_path / "gt").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "gt" / "a.png")
    opt = {"dataroot_lq": str(tmp_path / "lq"), "dataroot_gt": str(tmp_path / "gt"), "phase": "val"}
    plan = PairedRuleDataset.plan(opt)
    plan.check()
    assert inspect(plan.survey()) == []
    sample = PairedRuleDataset(opt)[0]
    assert sample["lq"].shape == (3, 56, 40)
    assert sample["lq"].equal(sample["gt"])


@pytest.mark.parametrize("kind", TURNED)
def test_no_tile_is_empty(tmp_path, kind):
    """Tiles of a turned image used to be cut from its stored size: one was 32 x 0, and mirroring it never ended."""
    turned(tmp_path, kind, 6, np.resize(PIXELS, (160, 200, 3)))
    opt = {"dataroot_gt": str(tmp_path), "phase": "train", "tile_size": 32, "pad_small": True, "name": "r"}
    dataset = RainSynthesisDataset(opt)
    assert len(dataset) == 30
    for sample in dataset:
        assert sample["gt"].shape == (3, 32, 32)


def test_empty_windows_are_refused(tmp_path):
    turned(tmp_path, "png", 1)
    store = TileStore(open_store(str(tmp_path), "x"), [(0, 0, 32), (0, 0, 64)], 32)
    for position in (0, 1):
        with pytest.raises(DataError, match="leaves the image"):
            store.read(position)
    options = RainSynthesisDataset.plan({"dataroot_gt": "x", "pad_small": True}).options
    with pytest.raises(DataError, match="nothing to cut from"):
        choose_patch((32, 0), options, np.random.default_rng(0), "a.png")


def test_sixteen_bit_tiles_stay_in_memory(tmp_path, monkeypatch):
    deep = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    opt = {"dataroot_gt": str(tmp_path), "phase": "train", "tile_size": 32, "cache": "ram"}
    dataset = RainSynthesisDataset(opt)
    before = [dataset.store.read(position).copy() for position in range(4)]
    monkeypatch.setattr(TileStore, "read", lambda self, position: 1 / 0)  # never again from the file
    for position in range(4):
        np.testing.assert_array_equal(dataset.store.read(position), before[position])


def test_above_pillows_limit_the_reader_decides(tmp_path, monkeypatch):
    """Pillow refuses from twice its limit on and warns from once; what counts is what OpenCV reads."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("png", "jpg", "webp", "tif", "bmp", "ppm"):
        path = tmp_path / f"a.{kind}"
        cv2.imwrite(str(path), PIXELS)
        assert read_image(path).shape[:2] == image_size(path) == (40, 56)
        assert image_problem(path) == image_problem(path, full=True) == ""


def test_more_pixels_than_the_reader_takes(tmp_path):
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        png += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    path = tmp_path / "huge.png"
    path.write_bytes(png)
    with pytest.raises(DataError, match="larger than any image that is read"):
        read_image(path)
    assert "larger than any image that is read" in image_problem(path)


def test_what_the_reader_refuses_is_reported(tmp_path):
    """A float TIFF is a fine picture to Pillow; training would have stopped at it."""
    path = tmp_path / "float.tif"
    cv2.imwrite(str(path), PIXELS.astype(np.float32))
    with pytest.raises(DataError, match="float32 are not supported"):
        read_image(path)
    for full in (False, True):
        assert "float32 are not supported" in image_problem(path, full)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif", "bmp", "ppm"])
def test_a_file_that_ends_early_has_a_problem(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    cv2.imwrite(str(path), PIXELS)
    data = path.read_bytes()
    for length in (0, 1, 7, 11, 20, 33, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:length])
        for full in (False, True):
            assert image_problem(path, full), length
        with open(path, "rb") as file:
            header = read_header(file)
        assert header is None or not header.whole


def test_a_photograph_with_a_film_behind_its_end_is_whole(tmp_path):
    path = turned(tmp_path, "jpg", 6)
    path.write_bytes(path.read_bytes() + b"film" * 1000)
    assert image_problem(path) == image_problem(path, full=True) == ""
    assert image_size(path) == read_image(path).shape[:2] == (56, 40)
