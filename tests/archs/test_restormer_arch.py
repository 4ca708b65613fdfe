"""Restormer and PromptIR against the plain transcription, and the switches that the golden cases do not cover."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references.restormer_reference import PlainPromptIR, PlainRestormer
from torch import nn

from basicsr_plugins.archs.promptir_arch import PromptIR
from basicsr_plugins.archs.restormer_arch import Restormer
from basicsr_plugins.archs.transformer_blocks import TransposedAttention, channel_similarity

TINY = {"dim": 8, "num_blocks": [1, 2, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4]}
PROMPTS = {"prompt_dims": [8, 16, 24], "prompt_sizes": [16, 8, 4]}


def pair(ours, plain, **kwargs):
    torch.manual_seed(0)
    reference = plain(**TINY, **kwargs)
    for key, value in reference.named_parameters():
        nn.init.normal_(value, std=value[0].numel() ** -0.5 if value.dim() > 3 else 0.2)
        if "norm" in key or "temperature" in key:
            value.data += 1
    network = ours(**TINY, **kwargs, **({"unused_layers": False} if ours is PromptIR else {}))
    network.load_state_dict(reference.state_dict())
    return network, reference


CASES = {
    "published": (Restormer, PlainRestormer, {}),
    "biases": (Restormer, PlainRestormer, {"bias": True}),
    "bias-free": (Restormer, PlainRestormer, {"LayerNorm_type": "BiasFree", "bias": True}),
    "dcpt": (Restormer, PlainRestormer, {"LayerNorm_type": "BiasFree", "attention": "relu", "eps": 1e-6}),
    "dual pixel": (Restormer, PlainRestormer, {"inp_channels": 6, "dual_pixel_task": True}),
    "promptir": (PromptIR, PlainPromptIR, PROMPTS),
    "promptir with biases": (PromptIR, PlainPromptIR, {**PROMPTS, "bias": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_equal_the_transcription(case):
    network, reference = pair(*CASES[case][:2], **CASES[case][2])
    x = torch.rand(2, CASES[case][2].get("inp_channels", 3), 24, 40, dtype=torch.float64, requires_grad=True)
    ours, plain = network.double()(x), reference.double()(x)
    torch.testing.assert_close(ours, plain)
    weight = torch.randn_like(plain)
    found = torch.autograd.grad(
        (ours * weight).sum(), [x, *(dict(network.named_parameters())[key] for key, _ in reference.named_parameters())]
    )
    expected = torch.autograd.grad((plain * weight).sum(), [x, *reference.parameters()])
    for mine, theirs in zip(found, expected):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_each_way_of_computing_a_block_gives_one_result(channels_last, grad):
    network, reference = pair(Restormer, PlainRestormer, bias=True)
    block, plain = network.encoder_level2[0], reference.encoder_level2[0]
    x = torch.randn(2, 16, 9, 11)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(block(x), plain(x), atol=1e-5, rtol=1e-4)
        for module in (block.attn.qkv, block.attn.project_out, block.ffn.project_in, block.ffn.project_out):
            module.register_forward_hook(lambda *args: None)
        torch.testing.assert_close(block(x), plain(x), atol=1e-5, rtol=1e-4)


class Adapted(nn.Module):
    """What an adapter does: it replaces a convolution and adds something to its output."""

    def __init__(self, conv):
        super().__init__()
        self.base = conv

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    def forward(self, x):
        return self.base(x) + 1


@pytest.mark.parametrize(
    "name", ["attn.qkv", "attn.qkv_dwconv", "attn.project_out", "ffn.project_in", "ffn.dwconv", "ffn.project_out"]
)
def test_replaced_convolutions_are_called(name):
    network, reference = pair(Restormer, PlainRestormer)
    for owner in (network, reference):
        parent = owner.get_submodule(f"latent.0.{name.split('.')[0]}")
        setattr(parent, name.split(".")[1], Adapted(getattr(parent, name.split(".")[1])))
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(network(x), reference(x), atol=1e-4, rtol=1e-4)


def test_hooks_on_inner_convolutions_fire_and_keep_what_they_saw():
    network = Restormer(preset="tiny")
    seen = []
    network.latent[0].ffn.dwconv.register_forward_hook(lambda module, args, out: seen.append((out, out.clone())))
    with torch.no_grad():
        network(torch.rand(1, 3, 16, 16))
    assert len(seen) == 1
    assert torch.equal(*seen[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_channel_similarity_is_the_cosine(dtype):
    q, k = (20 * torch.randn(2, 6, 50)).to(dtype), torch.randn(2, 6, 50).to(dtype)
    found = channel_similarity(q, k, heads=2)
    expected = F.cosine_similarity(q.double().view(2, 2, 3, 1, 50), k.double().view(2, 2, 1, 3, 50), dim=-1)
    torch.testing.assert_close(found.double(), expected, atol={torch.float32: 1e-6}.get(dtype, 2e-2), rtol=0)
    zero = torch.zeros(1, 2, 5, requires_grad=True)
    channel_similarity(zero, torch.ones(1, 2, 5), 1).sum().backward()
    assert zero.grad.isfinite().all()


def test_half_precision_sums_do_not_overflow():
    q = torch.full((1, 2, 4096), 100.0, dtype=torch.float16)
    torch.testing.assert_close(channel_similarity(q, q, 1).float(), torch.ones(1, 1, 2, 2), atol=2e-3, rtol=0)


def test_relu_attention_is_not_normalised():
    attention = TransposedAttention(4, 2, attention="relu")
    with torch.no_grad():
        attention.temperature.fill_(-1.0)  # turns equal channels away from each other
        attention.qkv.weight.copy_(torch.ones_like(attention.qkv.weight))
        attention.qkv_dwconv.weight.zero_()
        attention.qkv_dwconv.weight[:, :, 1, 1] = 1
        assert not attention(torch.rand(1, 4, 5, 5)).any()


@pytest.mark.parametrize("scale", [2, 4])
def test_dcpts_super_resolution_output(scale):
    network = Restormer(preset="tiny", scale=scale)
    x = torch.rand(1, 3, 13, 21)
    with torch.no_grad():
        out = network(x)
        assert out.shape == (1, 3, 13 * scale, 21 * scale)
        # without the convolutions each output is the input, and the colours are interleaved as published
        for conv in network.output:
            conv.weight.zero_()
        out = network(x)
    shuffled = F.pixel_shuffle(torch.cat([x] * 2**scale, 1), scale)
    torch.testing.assert_close(out, shuffled)
    assert len(network.output) == 2**scale


def test_published_key_and_parameter_count_of_dcpts_super_resolution():
    with torch.device("meta"):
        network = Restormer(preset="dcpt", scale=2)
    assert sum(value.numel() for value in network.parameters()) == 26119444
    assert len(network.state_dict()) == 409


def test_dcpts_biases_and_initialisation():
    network = Restormer(preset="dcpt", bias=True)
    biases = {key.split(".")[0] for key, _ in network.named_parameters() if key.endswith("bias")}
    assert biases == {"reduce_chan_level2", "reduce_chan_level3", "output"}
    assert 0.019 < network.latent[0].attn.qkv.weight.std() < 0.021
    assert not network.output.bias.any()


def test_padding_equals_padding_outside():
    network = Restormer(preset="tiny").eval()
    x = torch.rand(1, 3, 19, 30)
    with torch.no_grad():
        outside = network(F.pad(x, (0, 2, 0, 5), mode="reflect"))[..., :19, :30]
        torch.testing.assert_close(network(x), outside)
