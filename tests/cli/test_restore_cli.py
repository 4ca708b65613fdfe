"""``basicsr-plugins restore``: files and folders, what is skipped, refused and kept, and ABAIR's adapters."""

from __future__ import annotations

import copy
import errno
import os
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

from basicsr_plugins import checkpoints, load_restorer
from basicsr_plugins.adapters import BlendedNetwork, find_adapters
from basicsr_plugins.archs.degradation_estimator_arch import DegradationEstimator
from basicsr_plugins.archs.nafnet_arch import NAFNet
from basicsr_plugins.cli.main import main
from basicsr_plugins.restore import batch
from basicsr_plugins.restore.record import RECORD

ARGUMENTS = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
NETWORK_OPT = {"type": "NAFNet", **ARGUMENTS}


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "net.pth"
    checkpoints.write(path, NAFNet(**ARGUMENTS).state_dict(), NETWORK_OPT)
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "grün 100% #1.png", "sub/a.jpg"):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    return folder


def restore(*words):
    return main(["restore", "--device", "cpu", *map(str, words)])


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_file_beside_itself(model, photos, capsys):
    assert restore(photos / "a.jpg", "--model", model) == 0
    restored = photos / "a_restored.jpg"
    assert Image.open(restored).size == (30, 20)
    assert str(restored) in capsys.readouterr().out
    assert restore(photos / "a.jpg", "--model", model) == 0
    assert "1 finished before" in capsys.readouterr().out


def test_a_folder_and_what_is_finished_foreign_or_changed(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert restore(photos, out, "--model", model) == 0
    assert names(out) == [RECORD, "a.jpg", "grün 100% #1.png", "one.png"]
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert restore(photos, out, "--model", model, "-r") == 0  # one more
    assert "1 restored, 3 finished before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert "sub/a.jpg" in names(out)
    # another picture, another setting, another file in the way: nothing is replaced unasked
    Image.new("RGB", (5, 5)).save(photos / "one.png")
    assert restore(photos, out, "--model", model) == 1
    assert "one.png" in capsys.readouterr().err
    assert Image.open(out / "one.png").size == (1, 1)
    assert restore(photos, out, "--model", model, "--overwrite") == 0
    assert "1 restored, 2 finished before" in capsys.readouterr().out
    assert Image.open(out / "one.png").size == (5, 5)
    assert restore(photos, out, "--model", model, "--quality", "50") == 1
    (out / "a.jpg").write_bytes(b"mine")
    assert restore(photos, out, "--model", model) == 1
    assert (out / "a.jpg").read_bytes() == b"mine"


def test_an_output_inside_the_input_is_not_restored_again(model, photos, capsys):
    assert restore(photos, photos / "out", "--model", model, "-r") == 0
    before = names(photos)
    assert restore(photos, photos / "out", "--model", model, "-r") == 0
    assert names(photos) == before


def test_several_inputs_get_names_of_their_own(model, photos, tmp_path):
    out = tmp_path / "out"
    Image.new("RGB", (3, 3)).save(photos / "A.JPG")
    assert restore(photos / "a.jpg", photos / "sub" / "a.jpg", photos / "A.JPG", "-o", out, "--model", model) == 0
    assert names(out) == [RECORD, "A_3.JPG", "a.jpg", "a_2.jpg"]
    assert restore(photos / "a.jpg", photos / "one.png", photos / "sub" / "a.jpg", "--model", model) == 1


def test_broken_files_are_reported_and_the_others_restored(model, photos, tmp_path, capsys):
    (photos / "text.png").write_text("no picture")
    (photos / "notes.txt").write_text("notes")
    Image.new("RGB", (9, 9)).save(photos / "moves.gif", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")])
    Image.new("RGB", (9, 9)).save(photos / "still.gif")
    assert restore(photos, tmp_path / "out", "--model", model) == 1
    said = capsys.readouterr()
    assert "4 restored, 0 finished before, 2 failed" in said.out
    assert "notes.txt" in said.out
    assert names(tmp_path / "out") == [RECORD, "a.jpg", "grün 100% #1.png", "one.png", "still.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "--model", "net.pth"], "neither a file nor a folder nothing"),
        (["empty", "--model", "net.pth"], "no image in empty"),
        (["photos", "--model", "nett.pth"], "Did you mean net.pth"),
        (["photos/a.jpg", "photos/a.jpg", "--model", "net.pth", "--overwrite"], "one of the photographs"),
        (["photos", "photos", "--model", "net.pth", "--overwrite"], "one of the photographs"),
        (["photos", "photos/a.jpg", "--model", "net.pth", "--overwrite"], "is a file"),
        (["photos", "--model", "net.pth", "--quality", "0"], "--quality"),
        (["photos", "--model", "net.pth", "--tile", "5"], "--tile"),
        (["photos", "--model", "net.pth", "--only", "rain"], "--only"),
        (["photos", "--model", "net.pth", "--weights", "rain"], "NAME=NUMBER"),
        (["photos", "--model", "net.pth", "--suggest"], "--estimator"),
    ],
)
def test_one_sentence_for_what_is_wrong(model, photos, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert restore(*words) == 1
    assert message in capsys.readouterr().err


def test_compare_and_another_format(model, photos, tmp_path):
    out = tmp_path / "out" / "b.webp"
    assert restore(photos / "a.jpg", out, "--model", model, "--compare") == 0
    assert Image.open(out).format == "WEBP"
    drawing = out.parent / "compare" / "b.webp.png"
    assert Image.open(drawing).size == (66, 46)
    out.unlink()
    drawing.write_bytes(b"mine")
    assert restore(photos / "a.jpg", out, "--model", model, "--compare") == 1
    assert drawing.read_bytes() == b"mine"
    assert not out.exists()
    # another input is no output either
    Image.new("RGB", (3, 3)).save(photos / "sub" / "one.png")
    several = [photos / "a.jpg", photos / "sub" / "one.png", photos / "one.png"]
    assert restore(*several, "-o", photos / "sub", "--model", model, "--overwrite") == 1
    assert Image.open(photos / "sub" / "one.png").size == (3, 3)


def test_no_half_file_after_ctrl_c_and_a_full_disk(model, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    write = pathlib.Path.write_bytes

    def interrupted(path, data):
        write(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    def full(path, data):
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(batch.Path, "write_bytes", interrupted)
    assert restore(photos, out, "--model", model) == 130
    monkeypatch.setattr(batch.Path, "write_bytes", full)
    assert restore(photos, out, "--model", model) == 1
    assert "No space left" in capsys.readouterr().err
    assert names(out) == []
    monkeypatch.undo()
    assert restore(photos, out, "--model", model) == 0


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX")
def test_an_output_that_cannot_be_written_is_said_before_anything_is_restored(model, photos, tmp_path, capsys):
    if os.geteuid() == 0:
        out = pathlib.Path("/proc/restored")  # the superuser may write everywhere else
    else:
        out = tmp_path / "locked" / "out"
        out.parent.mkdir(mode=0o500)
    assert restore(photos, out, "--model", model) == 1
    said = capsys.readouterr()
    assert "cannot be written" in said.err
    assert "->" not in said.out


@pytest.fixture
def abair(base_with_adapters, tmp_path):
    """A base, two adapters of it, and an estimator."""
    options = {"classes": ["rain", "haze", "clean"], "width": 8, "view": 32}
    estimator = DegradationEstimator(**options)
    estimator.head.weight.data.mul_(20)
    checkpoints.write(tmp_path / "net_e.pth", estimator.state_dict(), {"type": "DegradationEstimator", **options})
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    return base_with_adapters, estimator.eval(), tmp_path


def pixels_of(path):
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].float() / 255


def close(path, expected):
    difference = (pixels_of(path) - expected.detach().clamp(0, 1)).abs().max()
    return bool(difference < 0.51 / 255 + 1e-4)


def test_adapters_are_weighed_chosen_and_blended(abair, capsys):
    net, estimator, folder = abair
    image = pixels_of(folder / "a.png")
    blended = BlendedNetwork(copy.deepcopy(net), find_adapters(folder / "adapters"))
    assert blended.names == ["haze", "rain"]
    with torch.no_grad():
        rain, haze, clean = estimator(image).softmax(dim=1)[0].tolist()
        results = {
            "only": blended(image, torch.tensor([[0.0, 1.0]])),
            "weights": blended(image, torch.tensor([[0.25, 0.5]])),
            "soft": blended(image, torch.tensor([[haze, rain]])).clamp(0, 1).lerp(image, max(0, 2 * clean - 1)),
        }
    adapters = ["--model", folder / "adapters"]
    judged = [*adapters, "--estimator", folder / "net_e.pth"]
    assert restore(folder / "a.png", folder / "only.png", *adapters, "--only", "rain") == 0
    assert restore(folder / "a.png", folder / "one.png", "--model", folder / "adapters" / "rain") == 0
    assert restore(folder / "a.png", folder / "weights.png", *adapters, "--weights", "rain=0.5, haze=0.25") == 0
    capsys.readouterr()
    assert restore(folder / "a.png", folder / "soft.png", *judged, "--map") == 0
    assert f"rain {rain:.2f}" in capsys.readouterr().out
    assert close(folder / "only.png", results["only"])
    assert close(folder / "one.png", results["only"])
    assert close(folder / "weights.png", results["weights"])
    assert close(folder / "soft.png", results["soft"])
    assert not close(folder / "soft.png", results["only"])
    assert Image.open(folder / "maps" / "soft.png.png").size[1] > 40  # the legend below
    assert restore(folder / "a.png", *judged, "--suggest") == 0
    said = capsys.readouterr().out
    assert "--weights" in said or "unsure" in said
    assert not (folder / "a_restored.png").exists()


def test_a_clean_photograph_keeps_its_pixels(abair):
    _, estimator, folder = abair
    options = {"classes": ["rain", "haze", "clean"], "width": 8, "view": 32}
    estimator.head.weight.data.zero_()
    estimator.head.bias.data.copy_(torch.tensor([0.0, 0.0, 30.0]))
    checkpoints.write(folder / "net_e.pth", estimator.state_dict(), {"type": "DegradationEstimator", **options})
    judged = ["--model", folder / "adapters", "--estimator", folder / "net_e.pth"]
    assert restore(folder / "a.png", folder / "clean.png", *judged, "--tile", 32, "--tile-overlap", 8) == 0
    assert torch.equal(pixels_of(folder / "clean.png"), pixels_of(folder / "a.png"))
    restorer = load_restorer(folder / "adapters", estimator=folder / "net_e.pth", device="cpu")
    tensor = pixels_of(folder / "a.png")
    assert torch.allclose(restorer(tensor), tensor, atol=1e-5)
    assert restore(folder / "a.png", folder / "forced.png", *judged, "--only", "rain") == 0
    assert not torch.equal(pixels_of(folder / "forced.png"), tensor)


def test_a_folder_with_base_adapters_and_estimator_is_a_model(abair):
    _, _, folder = abair
    whole = folder / "whole"
    whole.mkdir()
    (folder / "base.pth").rename(whole / "base.pth")  # not where the adapters have it recorded
    (folder / "adapters").rename(whole / "adapters")
    assert restore(folder / "a.png", folder / "only.png", "--model", whole, "--only", "rain") == 0
    (folder / "net_e.pth").rename(whole / "estimator.pth")
    assert restore(folder / "a.png", folder / "soft.png", "--model", whole) == 0
    assert not torch.equal(pixels_of(folder / "only.png"), pixels_of(folder / "soft.png"))
    (whole / "blend.yml").write_text("threshold: 1.0\n")  # nothing is ever that sure
    assert restore(folder / "a.png", folder / "base.png", "--model", whole) == 0
    assert restore(folder / "a.png", folder / "none.png", "--model", whole, "--weights", "rain=0") == 0
    assert torch.equal(pixels_of(folder / "base.png"), pixels_of(folder / "none.png"))
    assert not torch.equal(pixels_of(folder / "base.png"), pixels_of(folder / "soft.png"))
    (whole / "blend.yml").write_text("threshold: 7\n")
    assert restore(folder / "a.png", folder / "x.png", "--model", whole) == 1


def test_what_adapters_lack_is_named(abair, capsys):
    _, _, folder = abair
    photo, adapters = folder / "a.png", folder / "adapters"
    assert restore(photo, "--model", adapters) == 1
    assert "no estimator that weighs them" in capsys.readouterr().err
    assert restore(photo, "--model", adapters, "--only", "rian") == 1
    assert "Did you mean 'rain'" in capsys.readouterr().err
    assert restore(photo, "--model", adapters, "--only", "rain", "--estimator", folder / "base.pth") == 1
    assert "no DegradationEstimator" in capsys.readouterr().err
    (folder / "base.pth").rename(folder / "moved.pth")
    assert restore(photo, "--model", adapters, "--only", "rain") == 1
    assert "--base" in capsys.readouterr().err
    assert restore(photo, "--model", adapters, "--only", "rain", "--base", folder / "moved.pth") == 0


def test_the_run_of_a_blend_names_its_adapters_itself(abair):
    _, _, folder = abair
    run = folder / "experiments" / "blend"
    (run / "models").mkdir(parents=True)
    (folder / "net_e.pth").rename(run / "models" / "net_e_latest.pth")
    (run / "blend.yml").write_text(
        f"blend: {{adapters: {folder / 'adapters'}}}\npath: {{pretrain_network_g: {folder / 'base.pth'}}}\n"
    )
    assert restore(folder / "a.png", "--model", run) == 0
    # a run of AdapterModel
    (folder / "run2" / "models").mkdir(parents=True)
    (folder / "adapters" / "rain").rename(folder / "run2" / "models" / "adapter_10")
    assert restore(folder / "a.png", folder / "b.png", "--model", folder / "run2") == 0
