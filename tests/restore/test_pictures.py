"""What came in goes out: depth, grey, alpha, profile, EXIF, text, for every format; broken files are refused."""

import dataclasses
import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.restore.containers import png16
from basicsr_plugins.restore.encode import encode, output_format
from basicsr_plugins.restore.orientation import upright
from basicsr_plugins.restore.picture import read_picture
from basicsr_plugins.restore.tiff import tiff

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation=1):
    block = Image.Exif()
    block[0x0112], block[0x010F] = orientation, "Maker"
    block.get_ifd(0x8769)[0x829A] = 0.25
    block.get_ifd(0x8825)[1] = "N"
    return block


def saved(path, image, **options):
    image.save(path, **options)
    return path


def again(path, folder, **changes):
    """Read, write in the file's own format, read again."""
    picture = read_picture(path)
    data, notes = encode(dataclasses.replace(picture, **changes), picture.format)
    target = folder / f"again_{path.name}"
    target.write_bytes(data)
    return picture, read_picture(target), target, notes


@pytest.fixture
def photo(noise):
    return Image.fromarray((noise >> 8).astype(np.uint8))


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "bmp", "ppm", "jpg"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_8_bits(photo, tmp_path, ending, mode):
    holds_alpha = ending in ("png", "webp", "tif")
    if "A" in mode and not holds_alpha:
        pytest.skip("the format has no alpha")
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    image = photo.convert(mode)
    path = saved(tmp_path / f"a.{ending}", image, **options)
    first, second, target, _ = again(path, tmp_path)
    exact = ending != "jpg"
    expected = np.asarray(Image.open(path)).reshape(37, 53, -1)
    colours = expected.shape[2] - (expected.shape[2] + 1) % 2
    assert np.array_equal(first.pixels, expected[..., :colours])
    assert (first.alpha is not None) == ("A" in mode)
    assert Image.open(target).mode == Image.open(path).mode
    assert Image.open(target).format == Image.open(path).format
    assert np.abs(second.pixels.astype(int) - first.pixels).max() <= (0 if exact else 12)
    if first.alpha is not None:
        assert np.array_equal(second.alpha, first.alpha)


@pytest.mark.parametrize("ending", ["png", "tif", "ppm"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits(noise, tmp_path, ending, channels):
    if ending == "ppm" and channels in (2, 4):
        pytest.skip("the format has no alpha")
    values = np.ascontiguousarray(noise[..., :channels])
    path = tmp_path / f"a.{ending}"
    if channels == 2:
        if ending == "tif":
            pytest.skip("no decoder here reads it; it is refused")
        path.write_bytes(png16(values))
    elif channels == 1:
        path = path if ending != "ppm" else path.with_suffix(".pgm")
        cv2.imwrite(str(path), values[..., 0])
    else:
        cv2.imwrite(str(path), values)
        values = values[..., [2, 1, 0, 3][:channels]]
    first, second, target, _ = again(path, tmp_path)
    colours = 1 if channels < 3 else 3
    for picture in (first, second):
        assert np.array_equal(picture.pixels, values[..., :colours])
        assert (picture.alpha is not None) == (channels in (2, 4))
        if picture.alpha is not None:
            assert np.array_equal(picture.alpha, values[..., -1])
    if channels != 2:  # another decoder agrees
        assert np.array_equal(cv2.imread(str(path), -1), cv2.imread(str(target), -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "deep.tif", "deep.png"])
def test_orientation_is_handled_once(photo, noise, tmp_path, orientation, ending):
    path = tmp_path / f"a.{ending}"
    pixels = np.asarray(photo.convert("RGB"))
    if ending == "deep.tif":
        pixels = np.ascontiguousarray(noise[..., :3])
        path.write_bytes(
            tiff(pixels, None, {}, PROFILE).replace(
                b"\x12\x01\x03\x00\x01\x00\x00\x00\x01", b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation])
            )
        )
    elif ending == "deep.png":
        pixels = np.ascontiguousarray(noise[..., :3])
        shell = saved(tmp_path / "shell.png", photo, exif=exif(orientation))
        from basicsr_plugins.restore.containers import into_png

        path.write_bytes(into_png(png16(pixels), [], None, Image.open(shell).info["exif"]))
    else:
        options = (
            {"quality": 95, "subsampling": 0} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
        )
        saved(path, photo.convert("RGB"), exif=exif(orientation), **options)
    first, second, target, _ = again(path, tmp_path)
    expected = upright(pixels, orientation)
    for picture in (first, second):
        assert picture.pixels.shape == expected.shape
        assert np.abs(picture.pixels.astype(int) - expected).max() <= (16 if ending == "jpg" else 0)
    with Image.open(target) as image:
        assert image.getexif().get(0x0112) == 1


def test_upright_is_what_pillow_does(photo):
    for orientation in range(1, 9):
        file = io.BytesIO()
        photo.save(file, "PNG", exif=exif(orientation))
        expected = np.asarray(ImageOps.exif_transpose(Image.open(file)))
        assert np.array_equal(upright(np.asarray(photo), orientation), expected)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_profile_exif_resolution_and_text_stay(photo, tmp_path, ending):
    options = {"exif": exif(6), "icc_profile": PROFILE}
    if ending != "webp":
        options["dpi"] = (300, 300)
    if ending == "png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", "Me")
        text.add_itxt("Title", "Grün")
        options["pnginfo"] = text
    if ending == "jpg":
        options.update(comment=b"hello", progressive=True, subsampling=1)
    path = saved(tmp_path / f"a.{ending}", photo.convert("RGB"), **options)
    _, _, target, notes = again(path, tmp_path)
    assert not notes
    with Image.open(path) as before, Image.open(target) as after:
        after.load()
        assert after.info["icc_profile"] == PROFILE
        found = after.getexif()
        assert found[0x0112] == 1
        assert found[0x010F] == "Maker"
        for directory in (0x8769, 0x8825):
            assert dict(found.get_ifd(directory)) == dict(before.getexif().get_ifd(directory))
        for key in ("dpi", "comment", "Author", "Title", "progressive"):
            if key in before.info:
                assert after.info[key] == before.info[key]


def test_segments_of_a_jpeg_go_through_byte_for_byte(photo, tmp_path):
    file = io.BytesIO()
    photo.convert("RGB").save(file, "JPEG")
    xmp = b'http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta tiff:Orientation="6"/>'
    extra = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    path = tmp_path / "a.jpg"
    path.write_bytes(file.getvalue()[:20] + extra + file.getvalue()[20:])
    _, _, target, _ = again(path, tmp_path)
    assert extra.replace(b'"6"', b'"1"') in target.read_bytes()
    assert Image.open(target).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    ("mode", "ending", "wanted"),
    [("CMYK", "jpg", "RGB"), ("CMYK", "tif", "RGB"), ("P", "png", "RGB"), ("1", "png", "L"), ("P", "gif", "RGB")],
)
def test_kinds_that_change_say_so(photo, tmp_path, mode, ending, wanted):
    path = saved(tmp_path / f"a.{ending}", photo.convert("RGB").convert(mode))
    picture = read_picture(path)
    assert picture.notes
    assert picture.pixels.shape == (37, 53, len(wanted))
    expected = np.asarray(Image.open(path).convert(wanted)).reshape(37, 53, -1)
    assert np.array_equal(picture.pixels, expected)


def test_a_transparent_colour_becomes_alpha(photo, tmp_path):
    image = photo.convert("RGB").convert("P")
    path = saved(tmp_path / "a.png", image, transparency=image.getpixel((0, 0)))
    picture = read_picture(path)
    assert set(np.unique(picture.alpha)) == {0, 255}


def test_a_jpeg_that_is_called_png_stays_a_jpeg():
    assert output_format(".png", "JPEG", ".png") == "JPEG"
    assert output_format(".jpg", "JPEG", ".PNG") == "PNG"
    with pytest.raises(OptionError, match="are written as"):
        output_format(".png", "PNG", ".xyz")


def test_another_format(noise, tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), noise[..., :3])
    picture = dataclasses.replace(read_picture(path), icc=PROFILE, exif=exif().tobytes(), extras=[])
    for kind in ("JPEG", "WEBP", "TIFF", "PNG"):
        data, notes = encode(picture, kind)
        image = Image.open(io.BytesIO(data))
        assert image.format == kind
        assert image.info["icc_profile"] == PROFILE
        assert bool(notes) == (kind in ("JPEG", "WEBP"))  # 8 bits
        if kind != "TIFF":
            assert image.getexif()[0x010F] == "Maker"
    with_alpha = dataclasses.replace(picture, alpha=picture.pixels[..., 0])
    with pytest.raises(DataError, match="no transparency"):
        encode(with_alpha, "JPEG")
    wide = dataclasses.replace(picture, pixels=np.zeros((1, 70000, 3), np.uint8))
    for kind in ("JPEG", "WEBP"):
        with pytest.raises(DataError, match="cannot be written"):
            encode(wide, kind)


def test_files_that_are_refused(photo, noise, tmp_path):
    rgb = photo.convert("RGB")
    cases = {}
    cases["text.png"] = b"no picture", "no picture"
    cases["empty.png"] = b"", "empty"
    for name in ("jpg", "png", "tif", "webp"):
        whole = saved(tmp_path / f"whole.{name}", rgb).read_bytes()
        cases[f"cut.{name}"] = whole[: len(whole) * 6 // 10], "broken"
    deep = png16(noise)
    cases["deep.png"] = deep[: len(deep) // 2], "broken"
    saved(tmp_path / "moves.gif", rgb, save_all=True, append_images=[rgb.rotate(90)])
    cases["moves.gif"] = (tmp_path / "moves.gif").read_bytes(), "holds 2 pictures"
    saved(tmp_path / "pages.tif", rgb, save_all=True, append_images=[rgb])
    cases["pages.tif"] = (tmp_path / "pages.tif").read_bytes(), "holds 2 pictures"
    saved(tmp_path / "float.tif", Image.fromarray(np.zeros((4, 4), np.float32)))
    cases["float.tif"] = (tmp_path / "float.tif").read_bytes(), "floating point"
    cv2.imwrite(str(tmp_path / "float3.tif"), np.zeros((4, 4, 3), np.float32))
    cases["float3.tif"] = (tmp_path / "float3.tif").read_bytes(), "TIFF|floating"
    for name, (data, words) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=words) as caught:
            read_picture(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_picture(tmp_path / "missing.png")


def test_a_header_that_claims_too_much_is_refused_before_it_is_decoded(tmp_path):
    data = bytearray(png16(np.zeros((1, 1, 3), np.uint16)))
    import zlib

    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(DataError, match="GiB of memory"):
        read_picture(tmp_path / "bomb.png")
