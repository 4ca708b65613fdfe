"""Every network in every format agrees with PyTorch at any size, and a file that does not is not kept."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from export_networks import OURS, STOCK, small, write_small
from torch import nn

from basicsr_plugins import checkpoints
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.export import exporter
from basicsr_plugins.export.compare import largest_difference
from basicsr_plugins.export.exporter import export_model
from basicsr_plugins.export.holds import what_holds
from basicsr_plugins.export.network import AnySize, Plain, plain_network
from basicsr_plugins.export.onnx_file import read_onnx, record_onnx, write_onnx
from basicsr_plugins.export.torchscript import NOTES, record_torchscript

EVERY = [*OURS, *STOCK]
#: Stock computes the number of images in Python.
ONE_IMAGE_ONLY = ("DCPTSwinIR", "SwinIR")
#: What stock or its arguments ask for; the other networks pad by themselves.
MULTIPLES = {"DCPTSwinIR": 8, "SwinIR": 8, "RRDBNet": 2}
#: Sizes that no exporter and no comparison has seen.
SIZES = [(1, 37, 83), (1, 96, 200), (2, 33, 50)]


@pytest.fixture(params=EVERY)
def name(request):
    return request.param


@pytest.fixture
def nafnet(tmp_path):
    write_small("NAFNet", tmp_path / "net.pth")
    return tmp_path / "net.pth"


def restored(network, images):
    """Return what ``restore`` computes: padded to what stock's network needs, and cropped."""
    kind = type(network).__name__
    scale = {"EDSR": 2, "RRDBNet": 2, "SwinIR": 2}.get(kind, 1)
    with torch.no_grad():
        return AnySize(network, MULTIPLES.get(kind, 1), scale)(images)


def images_of(size, seed=1):
    n, h, w = size
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed))


def test_torchscript_is_right_at_every_size(name, tmp_path):
    network = write_small(name, tmp_path / "net.pth")
    written = export_model(tmp_path / "net.pth", tmp_path / "net.pt")
    module = torch.jit.load(tmp_path / "net.pt")
    for size in SIZES:
        images = images_of(size)
        with torch.no_grad():
            torch.testing.assert_close(module(images), restored(network, images), atol=2e-5, rtol=1e-4)
    assert (written.format, written.multiple) == ("torchscript", MULTIPLES.get(name, 1))
    assert written.batches is (name not in ONE_IMAGE_ONLY)
    assert written.difference < 1e-5
    assert name not in OURS or not devices_in(module)


def devices_in(module):
    """Return the lines that fix a device; sides are numbers on the CPU wherever the image is."""
    lines = str(getattr(module, "recorded", module).inlined_graph).splitlines()
    fixed = {line.split(" :")[0].strip() for line in lines if "Device = prim::Constant" in line}
    moved = [line for line in lines if any(f"{each}," in line or f"{each})" in line for each in fixed)]
    return [line for line in moved if "core/padding.py" not in line]


def test_onnx_is_right_at_every_size(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if name == "VQGAN":
        pytest.skip("its codes are chosen, see below")
    network = write_small(name, tmp_path / "net.pth")
    written = export_model(tmp_path / "net.pth", tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for size in SIZES:
        images = images_of(size)
        if size[0] > 1 and name in ONE_IMAGE_ONLY:
            with pytest.raises(Exception, match="Got: 2 Expected: 1"):
                session.run(["restored"], {"lq": images.numpy()})
            continue
        got = session.run(["restored"], {"lq": images.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(got), restored(network, images), atol=2e-5, rtol=1e-4)
    assert written.batches is (name not in ONE_IMAGE_ONLY)
    assert written.difference < 1e-5


def test_onnx_of_vqgan_chooses_other_codes_only_where_two_are_as_near_as_rounding(tmp_path):
    pytest.importorskip("onnxruntime")
    network = write_small("VQGAN", tmp_path / "net.pth")
    plain = plain_network(tmp_path / "net.pth")
    write_onnx(record_onnx(plain, 1, torch.float32, True, 17), tmp_path / "net.onnx", plain, {})
    run = read_onnx(tmp_path / "net.onnx")
    for size in SIZES:
        images = images_of(size)
        wrong = (run(images) - restored(network, images)).abs().amax(1) > 1e-3
        assert wrong.float().mean() < 0.02


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_safetensors_are_loaded_again(name, precision, tmp_path):
    network = write_small(name, tmp_path / "net.pth")
    if (name, precision) in (("VQGAN", "fp16"), ("VQGAN", "bf16")):  # another nearest code is another picture
        with pytest.raises(CheckpointError, match="differs from the network"):
            export_model(tmp_path / "net.pth", tmp_path / "net.safetensors", precision=precision)
        return
    written = export_model(tmp_path / "net.pth", tmp_path / "net.safetensors", precision=precision)
    again = checkpoints.load(tmp_path / "net.safetensors")
    assert type(again).__name__ == name
    held = checkpoints.read(tmp_path / "net.safetensors")
    kinds = {value.dtype for value in held.values() if value.is_floating_point()}
    assert kinds == {{"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]}
    images = images_of((1, 37, 40))
    torch.testing.assert_close(
        restored(again, images), restored(network, images), atol={"fp32": 0.0, "fp16": 5e-3, "bf16": 3e-2}[precision],
        rtol=0.0,
    )  # fmt: skip
    assert (written.difference == 0) is (precision == "fp32")


@pytest.mark.parametrize("kind", ["NAFNet", "DehazeFormer", "UNet", "EDSR"])
@pytest.mark.parametrize(("ending", "precision"), [("pt", "fp16"), ("pt", "bf16"), ("onnx", "fp16")])
def test_half_precision_takes_and_gives_float32(kind, ending, precision, tmp_path):
    if ending == "onnx":
        pytest.importorskip("onnxruntime")
    write_small(kind, tmp_path / "net.pth")
    written = export_model(tmp_path / "net.pth", tmp_path / f"net.{ending}", precision=precision)
    assert 1e-5 < written.difference < written.tolerance
    if ending == "pt":
        kinds = {value.dtype for value in torch.jit.load(written.path).parameters()}
        assert kinds == {{"fp16": torch.float16, "bf16": torch.bfloat16}[precision]}
        assert torch.jit.load(written.path)(images_of((1, 20, 30))).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in OURS if kind != "VQGAN"])
def test_half_precision_onnx_of_every_network(kind, tmp_path):
    pytest.importorskip("onnxruntime")
    write_small(kind, tmp_path / "net.pth")
    assert export_model(tmp_path / "net.pth", tmp_path / "net.onnx", precision="fp16").difference < 5e-3


@pytest.mark.parametrize("opset", [16, 17])
def test_the_opset_is_written_and_the_file_says_what_it_is(nafnet, opset, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    export_model(nafnet, tmp_path / "net.onnx", opset=opset)
    model = onnx.load(tmp_path / "net.onnx")
    assert [each.version for each in model.opset_import if each.domain == ""] == [opset]
    assert [each.name for each in model.graph.input] == ["lq"]
    assert [each.name for each in model.graph.output] == ["restored"]
    said = {each.key: each.value for each in model.metadata_props}
    assert json.loads(said["network_g"]) == {"type": "NAFNet", **small("NAFNet").constructor_arguments()}
    assert (said["scale"], said["pads_to"], said["precision"]) == ("1", "1", "fp32")


def test_torchscript_says_what_it_is(nafnet, tmp_path):
    export_model(nafnet, tmp_path / "net.pt")
    notes = {NOTES: ""}
    torch.jit.load(tmp_path / "net.pt", _extra_files=notes)
    said = json.loads(notes[NOTES])
    assert said["network_g"] == {"type": "NAFNet", **small("NAFNet").constructor_arguments()}
    assert (said["scale"], said["pads_to"], said["batches"], said["precision"]) == (1, 1, True, "fp32")


class PadsInPython(nn.Module):
    """Takes any size, and what it pads is fixed by a recording."""

    def __init__(self, mode="reflect"):
        super().__init__()
        self.conv, self.mode = nn.Conv2d(3, 3, 2, stride=2), mode

    def forward(self, x):
        h, w = int(x.shape[-2]), int(x.shape[-1])
        padded = nn.functional.pad(x, (0, -w % 8, 0, -h % 8), mode=self.mode)
        return nn.functional.interpolate(self.conv(padded), scale_factor=2.0)[..., :h, :w] * (h / w)


class CropsInPython(PadsInPython):
    """The same without the last factor, which no padding can make up for."""

    def forward(self, x):
        h, w = int(x.shape[-2]), int(x.shape[-1])
        padded = nn.functional.pad(x, (0, -w % 8, 0, -h % 8), mode=self.mode) if h % 8 or w % 8 else x
        y = nn.functional.interpolate(self.conv(padded), scale_factor=2.0)
        return y[..., :h, :w] if h % 8 or w % 8 else y


def held(network):
    plain = Plain(network.eval(), {"type": "Mine"}, "Mine of here", 3, 1, 1)
    return what_holds(plain, lambda multiple, batches: record_torchscript(plain, multiple, torch.float32, batches))


def test_a_recording_that_is_right_at_its_own_size_alone_is_found():
    with pytest.raises(CheckpointError, match="cannot be recorded so that it is right at any size"):
        held(PadsInPython())


def test_padding_outside_makes_up_for_padding_that_a_recording_fixes():
    multiple, batches, difference = held(CropsInPython())
    assert (multiple, batches) == (8, True)
    assert difference < 1e-5


class CountsInPython(nn.Module):
    """Mixes up several images after it was recorded with one."""

    def forward(self, x):
        return x + 3e-4 * x.reshape(int(x.shape[0]), -1, *x.shape[-2:]).mean(1)[:, None, : x.shape[-2], : x.shape[-1]]


def test_a_number_of_images_that_a_recording_fixes_is_found_however_little_it_changes():
    assert held(CountsInPython())[1] is False


def test_a_file_that_differs_is_not_kept(nafnet, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    before = sorted(tmp_path.iterdir())
    for ending, reader in (("pt", "read_torchscript"), ("onnx", "read_onnx")):
        read = getattr(exporter, reader)
        monkeypatch.setattr(exporter, reader, lambda path, read=read: lambda images: read(path)(images) + 2e-4)
        with pytest.raises(CheckpointError, match=r"differs from the network by .* more than 0\.0001"):
            export_model(nafnet, tmp_path / f"net.{ending}")
    monkeypatch.setitem(exporter.TOLERANCE, "fp16", 1e-7)
    with pytest.raises(CheckpointError, match="was not kept"):
        export_model(nafnet, tmp_path / "net.safetensors", precision="fp16")
    assert sorted(tmp_path.iterdir()) == before


def test_the_comparison_names_what_it_finds():
    network = nn.Identity()
    assert largest_difference(lambda x: x + 0.25, network, 3) == pytest.approx(0.25)
    assert largest_difference(lambda x: 100 * x + 0.25, lambda x: 100 * x, 3) < 0.01  # as a share of what comes out
    for wrong, text in (
        (lambda x: x[..., 1:], "not \\(1, 3, 64, 64\\)"),
        (lambda x: x / 0, "not finite"),
        (lambda x: x.view(3), "does not run on 1 x 64 x 64"),
    ):
        with pytest.raises(CheckpointError, match=text):
            largest_difference(wrong, network, 3)


def test_nothing_is_replaced_unasked_and_an_old_file_survives_a_failure(nafnet, tmp_path, monkeypatch):
    target = tmp_path / "net.pt"
    target.write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="--overwrite"):
        export_model(nafnet, target)
    monkeypatch.setattr(
        exporter, "write_torchscript", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(CheckpointError, match="No space left"):
        export_model(nafnet, target, overwrite=True)
    assert target.read_bytes() == b"mine"
    monkeypatch.undo()
    export_model(nafnet, target, overwrite=True)
    assert target.read_bytes() != b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt", "net.pth"]


def test_a_file_that_appears_meanwhile_is_not_replaced(nafnet, tmp_path, monkeypatch):
    write = exporter.write_torchscript

    def slowly(*args):
        (tmp_path / "net.pt").write_bytes(b"mine")
        write(*args)

    monkeypatch.setattr(exporter, "write_torchscript", slowly)
    with pytest.raises(CheckpointError, match="exists already"):
        export_model(nafnet, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("output", "options", "text"),
    [
        ("net.h5", {}, "does not end in .safetensors, .pt, .ts, .onnx"),
        ("net.onnx", {"format": "onxn"}, "Did you mean 'onnx'"),
        ("net.onnx", {"format": "torchscript"}, "ends like onnx"),
        ("net.bin", {"format": "safetensors"}, "has to end in .safetensors"),
        ("net.onnx", {"precision": "fp61"}, "Did you mean 'fp16'"),
        ("net.onnx", {"precision": "bf16"}, "onnxruntime has no bf16"),
        ("net.onnx", {"opset": 9}, "between 16 and 20"),
        ("nowhere/net.pt", {}, "does not exist; create it"),
        ("net.pt", {"weights": "rain"}, "--only"),
    ],
)
def test_arguments_that_are_wrong(nafnet, tmp_path, output, options, text):
    with pytest.raises(OptionError, match=text):
        export_model(nafnet, tmp_path / output, **options)
    assert sorted(tmp_path.iterdir()) == [nafnet]


def test_a_missing_package_names_the_extra(nafnet, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    with pytest.raises(DependencyError, match=r"basicsr-plugins\[onnx\]"):
        export_model(nafnet, tmp_path / "net.onnx")


def test_a_network_that_restores_nothing_is_refused(tmp_path):
    from basicsr_plugins.archs.degradation_classifier_arch import DegradationClassifier

    network = DegradationClassifier(feature_dims=[8, 16])
    checkpoints.write(
        tmp_path / "net.pth", network.state_dict(),
        {"type": "DegradationClassifier", "feature_dims": [8, 16]},
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="does not restore pictures"):
        export_model(tmp_path / "net.pth", tmp_path / "net.pt")


def test_stock_swinir_does_not_compute_in_half_precision(tmp_path):
    write_small("SwinIR", tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="does not compute in bf16 by itself"):
        export_model(tmp_path / "net.pth", tmp_path / "net.pt", precision="bf16")
    assert export_model(tmp_path / "net.pth", tmp_path / "net.safetensors", precision="bf16").difference < 5e-2


def test_grey_networks(tmp_path):
    from basicsr_plugins.archs.restormer_arch import Restormer

    opt = {"type": "Restormer", "preset": "tiny", "inp_channels": 1, "out_channels": 1}
    checkpoints.write(
        tmp_path / "net.pth", Restormer(**{k: v for k, v in opt.items() if k != "type"}).state_dict(), opt
    )
    export_model(tmp_path / "net.pth", tmp_path / "net.pt")
    assert torch.jit.load(tmp_path / "net.pt")(torch.rand(1, 1, 20, 31)).shape == (1, 1, 20, 31)
