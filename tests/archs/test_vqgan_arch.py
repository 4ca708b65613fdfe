"""VQGAN: the golden case of the public network, the codebook loss, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import FOLDER, largest_error, load_case, seeded_input, seeded_state

from basicsr_plugins.archs.vqgan_arch import VQGAN, code_distances, codebook_loss
from basicsr_plugins.core.errors import CheckpointError, OptionError

TINY = {
    "z_channels": 8,
    "resolution": 32,
    "ch": 32,
    "ch_mult": [1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [16],
}


def tiny(**overrides):
    torch.manual_seed(0)
    return VQGAN(**{"ddconfig": TINY, "n_embed": 16, "embed_dim": 4, **overrides}).eval()


def test_golden_case_keys_output_indices_and_codebook_loss():
    meta, wanted = load_case("vqgan_f4_small")
    with np.load(FOLDER / "vqgan_f4_small.npz", allow_pickle=False) as case:
        indices, loss = case["indices"], float(case["codebook_loss"])
    network = VQGAN(**meta["kwargs"]).eval()
    assert [[key, list(value.shape)] for key, value in network.named_parameters()] == meta["parameters"]
    assert [[key, list(value.shape)] for key, value in network.named_buffers()] == meta["buffers"]
    network.load_state_dict(seeded_state(meta))
    with torch.no_grad():
        result = network(seeded_input(meta), full=True)
    assert largest_error(result.image, wanted) <= 1e-4
    assert (result.indices.flatten().numpy() == indices).all()
    assert float(result.codebook_loss) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(("ch_mult", "attention"), [([1, 1, 2, 2, 4], 16), ([1, 1, 2, 4], 32)])
def test_public_sizes_have_their_factor_and_attention(ch_mult, attention):
    sizes = {**TINY, "ch": 128, "ch_mult": ch_mult, "num_res_blocks": 2, "resolution": 256, "z_channels": 256}
    with torch.device("meta"):
        network = VQGAN({**sizes, "attn_resolutions": [attention]}, n_embed=1024, embed_dim=256)
    assert network.multiple_of == 2 ** (len(ch_mult) - 1)
    keys = set(network.state_dict())
    coarsest = len(ch_mult) - 1
    assert f"encoder.down.{coarsest}.attn.1.q.weight" in keys
    assert f"decoder.up.{coarsest}.attn.2.q.weight" in keys
    assert not any(key.startswith(f"encoder.down.{coarsest - 1}.attn") for key in keys)
    assert network.state_dict()["quantize.embedding.weight"].shape == (1024, 256)


def test_code_distances_equal_a_loop():
    generator = torch.Generator().manual_seed(1)
    latent, codebook = torch.randn(2, 3, 2, 4, generator=generator), torch.randn(5, 3, generator=generator)
    distances = code_distances(latent, codebook)
    for n, y, x, k in np.ndindex(2, 2, 4, 5):
        wanted = sum((float(latent[n, d, y, x]) - float(codebook[k, d])) ** 2 for d in range(3))
        assert float(distances[n, y, x, k]) == pytest.approx(wanted, abs=1e-5)


def test_legacy_switch_swaps_the_gradients_and_not_the_value():
    def gradients(legacy):
        latent = torch.tensor([[[[1.0]], [[3.0]]]], requires_grad=True)
        codes = torch.tensor([[[[0.0]], [[1.0]]]], requires_grad=True)
        loss = codebook_loss(latent, codes, 0.25, legacy)
        loss.backward()
        return float(loss.detach()), float(latent.grad.abs().sum()), float(codes.grad.abs().sum())

    # mean of (1, 4) is 2.5; each gradient is 2 (z - c) / 2 times its term's weight
    assert gradients(legacy=True) == pytest.approx((2.5 * 1.25, 3.0, 0.75))
    assert gradients(legacy=False) == pytest.approx((2.5 * 1.25, 0.75, 3.0))


def test_gradient_goes_straight_through_the_quantiser():
    network = tiny()
    latent = torch.randn(1, 4, 3, 5, requires_grad=True)
    codes, indices, _ = network.quantize(latent)
    weights = torch.randn_like(codes)
    (codes * weights).sum().backward()
    assert torch.equal(latent.grad, weights)
    assert torch.equal(codes, network.quantize.lookup(indices))


def test_unit_range_maps_there_and_back():
    plain, unit = tiny(), tiny(unit_range=True)
    images = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        assert torch.allclose(unit(images), (plain(images * 2 - 1) + 1) / 2, atol=1e-6)


def test_indices_alone_rebuild_the_output():
    network = tiny()
    with torch.no_grad():
        result = network(torch.rand(1, 3, 16, 24), full=True)
        assert torch.allclose(network.decode_indices(result.indices), result.image, atol=1e-6)
    assert result.indices.shape == (1, 8, 12)


def test_a_public_file_s_loss_networks_are_left_out():
    network, other = tiny(), tiny()
    with torch.no_grad():
        other.encoder.conv_in.weight.add_(1)
    network.load_state_dict({**other.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(1)})
    assert torch.equal(network.encoder.conv_in.weight, other.encoder.conv_in.weight)
    with pytest.raises(CheckpointError, match="Gumbel"):
        network.load_state_dict({"quantize.embed.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"ddconfig": {**TINY, "attn_resolution": [16]}}, "attn_resolutions"),
        ({"ddconfig": {**TINY, "attn_resolutions": [64]}}, "unknown resolution '64'"),
        ({"ddconfig": {**TINY, "ch": 48}}, "multiples of 32"),
        ({"ddconfig": {**TINY, "ch_mult": []}}, "ch_mult"),
        ({"ddconfig": {**TINY, "double_z": True}}, "double_z"),
        ({"ddconfig": {key: TINY[key] for key in TINY if key != "ch"}}, "ddconfig.ch: this option is required"),
        ({"ddconfig": 3}, "mapping"),
        ({"n_embed": 0}, "n_embed"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(overrides, message):
    with pytest.raises(OptionError, match=message):
        tiny(**overrides)


def test_any_size_is_padded_and_cut_back():
    network = tiny()
    images = torch.rand(1, 3, 15, 17)
    padded = torch.nn.functional.pad(images, (0, 1, 0, 1), mode="reflect")
    with torch.no_grad():
        assert torch.equal(network(images), network(padded)[..., :15, :17])
    with pytest.raises(OptionError, match="Pad to 16 x 18"):
        network.encode(images)
