"""Restormer and PromptIR, written straight from the formulas: what our networks have to equal, and to beat.

Same keys as ours, one line per formula, nothing rearranged for speed. Sides must be multiples of 8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def to_tokens(x):
    return x.flatten(2).transpose(1, 2)  # b c h w -> b (h w) c


def to_map(x, h, w):
    return x.transpose(1, 2).unflatten(2, (h, w))  # b (h w) c -> b c h w


class Norm(nn.Module):
    def __init__(self, dim, kind, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        if kind == "WithBias":
            self.bias = nn.Parameter(torch.zeros(dim))
        self.kind, self.eps = kind, eps

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = x.var(-1, keepdim=True, unbiased=False)
        if self.kind == "WithBias":
            return (x - mean) / torch.sqrt(variance + self.eps) * self.weight + self.bias
        return x / torch.sqrt(variance + self.eps) * self.weight


class LayerNorm(nn.Module):
    def __init__(self, dim, kind, eps):
        super().__init__()
        self.body = Norm(dim, kind, eps)

    def forward(self, x):
        return to_map(self.body(to_tokens(x)), *x.shape[-2:])


class Attention(nn.Module):
    def __init__(self, dim, heads, bias, kind):
        super().__init__()
        self.heads, self.kind = heads, kind
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        q = q.reshape(b, self.heads, c // self.heads, h * w)
        k = k.reshape(b, self.heads, c // self.heads, h * w)
        v = v.reshape(b, self.heads, c // self.heads, h * w)
        q = F.normalize(q, dim=-1)
        k = F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1)) * self.temperature
        attention = attention.softmax(dim=-1) if self.kind == "softmax" else attention.relu()
        return self.project_out((attention @ v).reshape(b, c, h, w))


class FeedForward(nn.Module):
    def __init__(self, dim, expansion, bias):
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x):
        x1, x2 = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(x1) * x2)


class Block(nn.Module):
    def __init__(self, dim, heads, expansion, bias, norm, attention, eps):
        super().__init__()
        self.norm1 = LayerNorm(dim, norm, eps)
        self.attn = Attention(dim, heads, bias, attention)
        self.norm2 = LayerNorm(dim, norm, eps)
        self.ffn = FeedForward(dim, expansion, bias)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Resample(nn.Module):
    def __init__(self, dim, out, shuffle):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, out, 3, padding=1, bias=False), shuffle)

    def forward(self, x):
        return self.body(x)


class PatchEmbed(nn.Module):
    def __init__(self, channels, dim):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, 3, padding=1, bias=False)

    def forward(self, x):
        return self.proj(x)


class Levels(nn.Module):
    """What Restormer and PromptIR share."""

    def __init__(
        self, inp_channels, out_channels, dim, num_blocks, refinement, heads, expansion, bias, norm, attention, eps
    ):
        super().__init__()
        self.shared = (expansion, bias, norm, attention, eps)
        self.heads = heads
        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.encoder_level1 = self.stage(dim, 0, num_blocks[0])
        self.down1_2 = Resample(dim, dim // 2, nn.PixelUnshuffle(2))
        self.encoder_level2 = self.stage(dim * 2, 1, num_blocks[1])
        self.down2_3 = Resample(dim * 2, dim, nn.PixelUnshuffle(2))
        self.encoder_level3 = self.stage(dim * 4, 2, num_blocks[2])
        self.down3_4 = Resample(dim * 4, dim * 2, nn.PixelUnshuffle(2))
        self.latent = self.stage(dim * 8, 3, num_blocks[3])
        self.decoder_level3 = self.stage(dim * 4, 2, num_blocks[2])
        self.up3_2 = Resample(dim * 4, dim * 8, nn.PixelShuffle(2))
        self.reduce_chan_level2 = nn.Conv2d(dim * 4, dim * 2, 1, bias=bias)
        self.decoder_level2 = self.stage(dim * 2, 1, num_blocks[1])
        self.up2_1 = Resample(dim * 2, dim * 4, nn.PixelShuffle(2))
        self.decoder_level1 = self.stage(dim * 2, 0, num_blocks[0])
        self.refinement = self.stage(dim * 2, 0, refinement)
        self.output = nn.Conv2d(dim * 2, out_channels, 3, padding=1, bias=bias)

    def block(self, dim, level):
        return Block(dim, self.heads[level], *self.shared)

    def stage(self, dim, level, blocks):
        return nn.Sequential(*(self.block(dim, level) for _ in range(blocks)))


class PlainRestormer(Levels):
    def __init__(
        self, inp_channels=3, out_channels=3, dim=48, num_blocks=(4, 6, 6, 8), num_refinement_blocks=4,
        heads=(1, 2, 4, 8), ffn_expansion_factor=2.66, bias=False, LayerNorm_type="WithBias", dual_pixel_task=False,
        attention="softmax", eps=1e-5,
    ):  # fmt: skip
        super().__init__(
            inp_channels, out_channels, dim, num_blocks, num_refinement_blocks, heads, ffn_expansion_factor, bias,
            LayerNorm_type, attention, eps,
        )  # fmt: skip
        self.up4_3 = Resample(dim * 8, dim * 16, nn.PixelShuffle(2))
        self.reduce_chan_level3 = nn.Conv2d(dim * 8, dim * 4, 1, bias=bias)
        self.dual_pixel_task = dual_pixel_task
        if dual_pixel_task:
            self.skip_conv = nn.Conv2d(dim, dim * 2, 1, bias=bias)

    def forward(self, x):
        embedded = self.patch_embed(x)
        e1 = self.encoder_level1(embedded)
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        t = self.latent(self.down3_4(e3))
        t = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(t), e3], 1)))
        t = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(t), e2], 1)))
        t = self.refinement(self.decoder_level1(torch.cat([self.up2_1(t), e1], 1)))
        return self.output(t + self.skip_conv(embedded)) if self.dual_pixel_task else self.output(t) + x


class Prompt(nn.Module):
    def __init__(self, prompt_dim, prompt_size, feature_dim):
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, 5, prompt_dim, prompt_size, prompt_size))
        self.linear_layer = nn.Linear(feature_dim, 5)
        self.conv3x3 = nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1, bias=False)

    def forward(self, x):
        b, _, h, w = x.shape
        weights = self.linear_layer(x.mean(dim=(-2, -1))).softmax(dim=1)
        prompts = self.prompt_param.repeat(b, 1, 1, 1, 1)
        prompt = (weights[:, :, None, None, None] * prompts).sum(dim=1)
        return self.conv3x3(F.interpolate(prompt, (h, w), mode="bilinear"))


class PlainPromptIR(Levels):
    def __init__(
        self, inp_channels=3, out_channels=3, dim=48, num_blocks=(4, 6, 6, 8), num_refinement_blocks=4,
        heads=(1, 2, 4, 8), ffn_expansion_factor=2.66, bias=False, LayerNorm_type="WithBias",
        prompt_dims=(64, 128, 320), prompt_sizes=(64, 32, 16),
    ):  # fmt: skip
        super().__init__(
            inp_channels, out_channels, dim, num_blocks, num_refinement_blocks, heads, ffn_expansion_factor, bias,
            LayerNorm_type, "softmax", 1e-5,
        )  # fmt: skip
        p1, p2, p3 = prompt_dims
        self.up4_3 = Resample(dim * 4, dim * 8, nn.PixelShuffle(2))
        self.reduce_chan_level3 = nn.Conv2d(dim * 6, dim * 4, 1, bias=bias)
        for level, width, prompt, size in zip((1, 2, 3), (dim * 2, dim * 4, dim * 8), prompt_dims, prompt_sizes):
            setattr(self, f"prompt{level}", Prompt(prompt, size, width))
        self.noise_level1, self.noise_level2, self.noise_level3 = (
            self.block(width, 2) for width in (dim * 2 + p1, dim * 4 + p2, dim * 8 + p3)
        )
        self.reduce_noise_level1 = nn.Conv2d(dim * 2 + p1, dim * 2, 1, bias=bias)
        self.reduce_noise_level2 = nn.Conv2d(dim * 4 + p2, dim * 4, 1, bias=bias)
        self.reduce_noise_level3 = nn.Conv2d(dim * 8 + p3, dim * 4, 1, bias=bias)

    def forward(self, x):
        e1 = self.encoder_level1(self.patch_embed(x))
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        t = self.latent(self.down3_4(e3))
        t = self.reduce_noise_level3(self.noise_level3(torch.cat([t, self.prompt3(t)], 1)))
        t = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(t), e3], 1)))
        t = self.reduce_noise_level2(self.noise_level2(torch.cat([t, self.prompt2(t)], 1)))
        t = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(t), e2], 1)))
        t = self.reduce_noise_level1(self.noise_level1(torch.cat([t, self.prompt1(t)], 1)))
        t = self.refinement(self.decoder_level1(torch.cat([self.up2_1(t), e1], 1)))
        return self.output(t) + x
