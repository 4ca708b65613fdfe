"""``load_restorer``: every kind of image in, the same kind out; tiles, precision, self-ensemble, memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from restore_networks import NETWORK_OPT, restorer_of, tiny
from torch import nn

from basicsr_plugins import checkpoints, load_restorer
from basicsr_plugins.core.errors import CheckpointError, DataError, OptionError
from basicsr_plugins.restore import engine as engine_module
from basicsr_plugins.restore.find_model import Model
from basicsr_plugins.restore.restorer import ImageRestorer


def test_importing_the_package_loads_no_torch():
    code = "import sys, basicsr_plugins; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (30, 41, 3), (30, 41), (30, 41, 4), (30, 41, 1), (30, 41, 2), (3, 700, 3)]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16"])
def test_an_identity_gives_every_array_back_to_the_last_bit(identity, shape, dtype):
    image = np.random.default_rng(0).random(shape)
    if dtype.startswith("uint"):
        image = image * np.iinfo(dtype).max
    image = image.astype(dtype)
    restored = identity(image)
    assert restored.dtype == image.dtype
    lost = 1e-7 if dtype == "float64" else 0
    np.testing.assert_allclose(restored.astype(float), image.astype(float), rtol=0, atol=lost)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK"])
def test_pil_images(identity, mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode)
    restored = identity(image)
    assert isinstance(restored, Image.Image)
    kept = mode if mode in ("L", "LA", "RGB", "RGBA") else "RGB"
    assert restored.mode == kept
    assert np.array_equal(np.asarray(restored), np.asarray(image.convert(kept)))


def test_tensors_and_lists(identity):
    batch = torch.rand(2, 3, 20, 33)
    assert torch.equal(identity(batch), batch)
    assert torch.equal(identity(batch[0]), batch[0])
    assert identity(batch.double()).dtype == torch.float64
    several = [batch[0], np.zeros((5, 6, 3), np.uint8)]
    restored = identity(several)
    assert torch.equal(restored[0], batch[0])
    assert restored[1].shape == (5, 6, 3)


def test_it_restores_what_the_network_makes_of_it(weights_file):
    image = torch.rand(1, 3, 24, 32)
    with torch.no_grad():
        expected = tiny()(image).clamp(0, 1)
    restore = load_restorer(weights_file, device="cpu")
    assert torch.equal(restore(image), expected)
    array = image[0].permute(1, 2, 0).numpy()
    assert np.array_equal(restore(array), expected[0].permute(1, 2, 0).numpy())
    pixels = np.rint(array * 255).astype(np.uint8)
    assert np.abs(restore(pixels).astype(float) / 255 - expected[0].permute(1, 2, 0).numpy()).max() < 0.05
    half = load_restorer(weights_file, device="cpu", precision="bf16")(image)
    assert 0 < (half - expected).abs().max() < 0.1
    flips = load_restorer(weights_file, device="cpu", self_ensemble=True)(image)
    assert 0 < (flips - expected).abs().max() < 1


def test_tiles_equal_the_whole_where_the_network_sees_little():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)
    image = torch.rand(1, 3, 150, 201)
    whole, tiles = (restorer_of(network, tile=tile, tile_overlap=16)(image) for tile in (0, 64))
    assert (whole - tiles).abs().max() < 1e-5
    assert torch.equal(restorer_of(network)(image), whole)


class Enlarge(nn.Module):
    """Two times larger."""

    def forward(self, x):
        return nn.functional.interpolate(x, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("tile", [0, 32])
def test_a_network_that_enlarges(tile):
    restore = restorer_of(Enlarge(), tile=tile, tile_overlap=8)
    assert restore.scale == 2
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    restored = restore(image)
    assert np.array_equal(restored[..., :3], image[..., :3].repeat(2, 0).repeat(2, 1))
    assert restored.shape == (100, 140, 4)


class Greedy(nn.Module):
    """Runs out of memory on everything larger than ``most`` pixels."""

    def __init__(self, error, most=64 * 64):
        super().__init__()
        self.error, self.most, self.sizes = error, most, []

    def forward(self, x):
        self.sizes.append(max(x.shape[-2:]))
        if x.shape[-1] * x.shape[-2] > self.most:
            raise self.error
        return x


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
    ],
)
def test_tiles_are_halved_until_they_fit(error, caplog):
    network = Greedy(error)
    restore = restorer_of(network)
    image = torch.rand(1, 3, 200, 300)
    assert torch.equal(restore(image), image)
    assert "tiles of 64 from here on" in caplog.text
    assert network.sizes[1] == 300  # after the probe: the whole
    assert restore.engine.tile == 64
    network.sizes.clear()
    restore(image)
    assert max(network.sizes) <= 64  # the next picture begins where the last one ended


def test_too_little_memory_for_any_tile_and_other_errors():
    network = Greedy(MemoryError())
    restore = restorer_of(network)
    network.most = 0
    with pytest.raises(DataError, match="not enough memory"):
        restore(torch.rand(1, 3, 100, 100))
    network.error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes"):
        restore(torch.rand(1, 3, 100, 100))


def test_the_tile_follows_the_free_memory(monkeypatch):
    torch.manual_seed(0)
    restore = restorer_of(nn.Conv2d(3, 3, 3, padding=1))
    assert restore.engine.per_pixel == pytest.approx(3 * 4 * 2, rel=0.1)  # its output, twice
    tiles = {}
    for free in (1 << 14, 1 << 20, 1 << 24, None):
        monkeypatch.setattr(engine_module, "free_memory", lambda device, free=free: free)
        tiles[free] = restore.engine._tile_for((3000, 4000), 1)
    assert tiles == {1 << 14: 32, 1 << 20: 128, 1 << 24: 512, None: 512}
    assert restore.engine._tile_for((300, 400), 1) == 400


def test_what_is_no_image_is_refused(identity, weights_file, tmp_path):
    for wrong, words in (
        (np.zeros((4, 4, 7), np.uint8), "expected an array"),
        (np.full((4, 4, 3), 255.0), "divide by 255"),
        (np.full((4, 4, 3), np.nan), "floats are expected"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((0, 4, 3), np.uint8), "without pixels"),
        (torch.zeros(1, 1, 4, 4), "expected a float tensor"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "expected a float tensor"),
        (Image.new("F", (3, 3)), "mode F"),
        ("photo.png", "got str"),
    ):
        with pytest.raises(DataError, match=words):
            identity(wrong)
    for wrong, words in (
        ({"tile": 3}, "--tile"),
        ({"tile": 64, "tile_overlap": 40}, "--tile-overlap"),
        ({"precision": "fp8"}, "--precision"),
        ({"precision": "fp16"}, "needs a GPU"),
        ({"device": "cdua"}, "--device"),
        ({"weights": "rain"}, "has none"),
        ({"base": weights_file}, "--base"),
        ({"estimator": weights_file}, "--estimator"),
    ):
        with pytest.raises(OptionError, match=words):
            load_restorer(weights_file, **{"device": "cpu", **wrong})
    with pytest.raises(OptionError, match="Did you mean .*net.safetensors"):
        load_restorer(weights_file.parent / "nett.safetensors")


def test_networks_that_restore_nothing_and_results_that_are_not_finite():
    with pytest.raises(CheckpointError, match="does not restore pictures"):
        restorer_of(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)))
    with pytest.raises(CheckpointError, match="no whole multiple"):
        restorer_of(nn.MaxPool2d(2))

    class Overflows(nn.Module):
        def forward(self, x):
            return x / (x - 0.25)

    with pytest.raises(DataError, match="not finite"):
        restorer_of(Overflows())(torch.full((1, 3, 8, 8), 0.25))


def test_grey_networks():
    restore = restorer_of(nn.Conv2d(1, 1, 1).requires_grad_(False))
    assert restore(np.zeros((5, 6), np.uint8)).shape == (5, 6)
    with pytest.raises(DataError, match="grey pictures only"):
        restore(np.zeros((5, 6, 3), np.uint8))


def test_memory_of_a_large_picture_stays_small():
    """It is never floats as a whole: 12000 x 80 by rows, and what is written comes in bands."""
    bands = []
    restore = restorer_of(nn.Identity(), tile=64, tile_overlap=16)
    image = np.zeros((1000, 70, 3), np.uint8)
    restore.restore_pixels(image, progress=bands.append)
    assert len(bands) > 10
    assert bands == sorted(bands)
    assert bands[-1] == 1000


def test_models_by_folder(tmp_path, weights_file):
    models = tmp_path / "run" / "models"
    for name, seed in (("net_g_5", 1), ("net_g_10", 2), ("net_g_best_val_psnr", 3), ("net_g_latest", 4)):
        states = {"params": tiny(seed + 10).state_dict(), "params_ema": tiny(seed).state_dict()}
        checkpoints.write_network_file(models / f"{name}.pth", states, NETWORK_OPT)
    image = torch.rand(1, 3, 16, 16)

    def seed_of(folder):
        restored = load_restorer(folder, device="cpu")(image)
        return next(s for s in range(20) if torch.equal(restored, tiny(s)(image).detach().clamp(0, 1)))

    assert seed_of(tmp_path / "run") == 4  # the average of the latest
    (models / "net_g_latest.pth").unlink()
    assert seed_of(models) == 3
    (models / "net_g_best_val_psnr.pth").unlink()
    assert seed_of(tmp_path / "run") == 2
    assert seed_of(weights_file.parent) == 0  # the only file of a folder
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match="holds no model"):
        load_restorer(tmp_path / "empty")


@pytest.mark.gpu
def test_on_a_gpu():
    """Memory is what the allocator says, halved tiles give the picture all the same, and types stay."""
    network = nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)
    image = torch.rand(1, 3, 500, 700)
    expected = restorer_of(network)(image)
    restore = ImageRestorer(Model(network, "test", "0"), torch.device("cuda"))
    assert restore.engine.per_pixel >= 12
    assert (restore(image) - expected).abs().max() < 1e-2  # TF32
    assert restore(image).device == image.device
    assert restore(image.cuda()).is_cuda
    pixels = (image[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    assert restore(pixels).shape == pixels.shape
    half = ImageRestorer(Model(network, "test", "0"), torch.device("cuda"), precision="fp16")
    assert (half(image) - expected).abs().max() < 1e-2

    class Allocates(nn.Module):
        def forward(self, x):
            if x.shape[-1] * x.shape[-2] > 256**2:
                torch.empty(1 << 50, device=x.device)
            return x

    halved = ImageRestorer(Model(Allocates(), "test", "0"), torch.device("cuda"))
    assert torch.equal(halved(image), image)
    assert halved.engine.tile <= 256
