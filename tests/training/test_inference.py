"""Any size, tiles and the self-ensemble: an identity comes back bit for bit, a short-sighted network as well."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.training.inference import Restorer, self_ensemble, tiled, whole_image


class Nearest(nn.Module):
    """An exact up-sampler."""

    def forward(self, x):
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def image(height: int, width: int, n: int = 1) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 60), width=st.integers(1, 60), tile=st.integers(1, 40), share=st.floats(0, 0.5),
    multiple=st.integers(1, 9), ensemble=st.booleans(), scale=st.sampled_from([1, 2]),
)  # fmt: skip
def test_identity_is_bit_equal_for_every_size_tile_and_overlap(height, width, tile, share, multiple, ensemble, scale):
    x = image(height, width)
    network = nn.Identity() if scale == 1 else Nearest()
    restore = Restorer(network, scale, multiple, tile, int(share * tile), ensemble)
    assert torch.equal(restore(x), network(x))


def exact_convolution(reach: int) -> nn.Module:
    """A convolution without rounding: small whole weights on pixels of 8 bits."""
    weight = torch.randint(-4, 5, (3, 3, 2 * reach + 1, 2 * reach + 1), generator=torch.Generator().manual_seed(reach))
    return lambda x: F.conv2d(x, weight.to(x.dtype), padding=reach)


@pytest.mark.parametrize("size", [(40, 40), (41, 67), (100, 33)])
@pytest.mark.parametrize("reach", [1, 2, 3])
def test_a_limited_receptive_field_gives_exactly_the_whole_image(size, reach):
    x = (image(*size) * 255).round()
    network = exact_convolution(reach)
    for tile in (32, 27):
        result = tiled(network, x, tile, 4 * reach)
        assert torch.equal(result, network(x)), (tile, (result - network(x)).abs().max())


def test_a_smaller_overlap_shows_at_the_seams_only():
    x, network = image(40, 64), exact_convolution(4)
    wrong = (tiled(network, x, 34, 4) - network(x)).abs().amax(dim=(0, 1)) > 1e-3
    assert wrong.any()
    assert not wrong[:, :24].any()


def blend_by_loops(restore, x: torch.Tensor, tile: int, overlap: int) -> torch.Tensor:
    """One row of tiles over the width, pixel by pixel."""
    width = x.shape[-1]
    count = 1
    while tile + (count - 1) * (tile - overlap) < width:
        count += 1
    starts = [round(i * (width - tile) / (count - 1)) for i in range(count)] if count > 1 else [0]
    result = torch.zeros_like(x)
    end = 0
    for start in starts:
        part = restore(x[..., start : start + tile])
        shared = end - start
        for column in range(part.shape[-1]):
            weight = 1.0
            if column < shared:
                weight = min(1.0, max(0.0, 2 * ((column + 0.5) / shared - 0.25)))
            old = result[..., start + column]
            result[..., start + column] = (1 - weight) * old + weight * part[..., column]
        end = start + tile
    return result


@pytest.mark.parametrize(("width", "tile", "overlap"), [(50, 20, 8), (41, 20, 10), (60, 16, 0), (18, 20, 4)])
def test_blending_equals_the_slow_reference(width, tile, overlap):
    def restore(x):  # depends on where the tile begins
        return x + x.mean()

    x = image(12, width)
    torch.testing.assert_close(tiled(restore, x, tile, overlap), blend_by_loops(restore, x, tile, overlap))


def test_only_whole_tiles_reach_the_network():
    seen = []

    def network(x):
        seen.append(tuple(x.shape[-2:]))
        return x

    Restorer(network, tile=16, tile_overlap=4)(image(50, 40))
    assert set(seen) == {(16, 16)}
    seen.clear()
    Restorer(network, tile=16, tile_overlap=4)(image(10, 40))
    assert set(seen) == {(10, 16)}
    seen.clear()
    Restorer(network, tile=64)(image(50, 40))
    assert seen == [(50, 40)]


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (8, 8), (17, 3)])
def test_padding_reflects_then_repeats_and_is_cut_off(size):
    seen = []

    def network(x):
        seen.append(x)
        return x

    x = image(*size)
    assert torch.equal(whole_image(network, x, 8), x)
    padded = seen[0]
    assert all(side % 8 == 0 for side in padded.shape[-2:])
    for row in range(padded.shape[-2]):
        h = size[0]
        source = row if row < h else (2 * (h - 1) - row if row < 2 * h - 1 else 0)
        assert torch.equal(padded[..., row, 0], x[..., max(source, 0), 0])


def test_the_networks_own_window_is_the_multiple():
    network = nn.Identity()
    assert Restorer(network).multiple == 1
    network.window_size = 8
    assert Restorer(network).multiple == 8
    network.window_size = (4, 6)
    assert Restorer(network).multiple == 12
    assert Restorer(network, pad_multiple=5).multiple == 5


def test_stock_swinir_says_its_window_in_its_blocks_only():
    import basicsr_plugins
    from basicsr_plugins.core.registration import lookup

    basicsr_plugins.register()
    network = lookup("arch", "SwinIR")(
        upscale=1, in_chans=3, img_size=16, window_size=8, depths=[2], embed_dim=4, num_heads=[2], mlp_ratio=1,
        upsampler="", resi_connection="1conv",
    )  # fmt: skip
    restore = Restorer(network.eval())
    assert restore.multiple == 8
    with torch.no_grad():
        assert restore(image(18, 11)).shape == (1, 3, 18, 11)
    ours = lookup("arch", "DehazeFormer")(preset="tiny")  # pads by itself
    assert Restorer(ours).multiple == 1


def test_self_ensemble_averages_the_eight_views():
    x = image(6, 9)

    def restore(view):
        return view * torch.arange(view.shape[-1]).float() + torch.arange(view.shape[-2]).float().view(-1, 1)

    expected = torch.zeros_like(x)
    for flip in (False, True):
        for turns in range(4):
            view = x.flip(-1) if flip else x
            for _ in range(turns):
                view = view.transpose(-1, -2).flip(-2)
            back = restore(view)
            for _ in range(turns):
                back = back.flip(-2).transpose(-1, -2)
            expected += (back.flip(-1) if flip else back) / 8
    torch.testing.assert_close(self_ensemble(restore, x), expected)


def test_an_overlap_of_more_than_half_a_tile():
    with pytest.raises(OptionError, match=r"val\.tile_overlap: 20 is more than half of val\.tile \(32\)"):
        Restorer(nn.Identity(), tile=32, tile_overlap=20)
