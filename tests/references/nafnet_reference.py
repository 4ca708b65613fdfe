"""NAFNet, written straight from the formulas: what ours has to equal, and to beat. Sides: multiples of 2^levels."""

from __future__ import annotations

import torch
from torch import nn


class LayerNorm2d(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        y = (x - mean) / (variance + 1e-6).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)


class Gate(nn.Module):
    def forward(self, x):
        first, second = x.chunk(2, dim=1)
        return first * second


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.conv1 = nn.Conv2d(c, c * 2, 1)
        self.conv2 = nn.Conv2d(c * 2, c * 2, 3, padding=1, groups=c * 2)
        self.conv3 = nn.Conv2d(c, c, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.sg = Gate()
        self.conv4 = nn.Conv2d(c, c * 2, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.norm1 = LayerNorm2d(c)
        self.norm2 = LayerNorm2d(c)

    def forward(self, x):
        t = self.sg(self.conv2(self.conv1(self.norm1(x))))
        t = t * self.sca(t)
        x = x + self.conv3(t) * self.beta
        return x + self.conv5(self.sg(self.conv4(self.norm2(x)))) * self.gamma


class PlainNAFNet(nn.Module):
    def __init__(self, img_channel=3, width=16, middle_blk_num=1, enc_blk_nums=(), dec_blk_nums=()):
        super().__init__()
        levels = len(enc_blk_nums)

        def stage(level, blocks):
            return nn.Sequential(*(Block(width * 2**level) for _ in range(blocks)))

        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.encoders = nn.ModuleList(stage(i, blocks) for i, blocks in enumerate(enc_blk_nums))
        self.decoders = nn.ModuleList(stage(levels - 1 - i, blocks) for i, blocks in enumerate(dec_blk_nums))
        self.middle_blks = stage(levels, middle_blk_num)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width * 2**i, width * 2 ** (i + 1), 1, bias=False), nn.PixelShuffle(2))
            for i in range(levels, 0, -1)
        )
        self.downs = nn.ModuleList(nn.Conv2d(width * 2**i, width * 2 ** (i + 1), 2, stride=2) for i in range(levels))

    def forward(self, x):
        f = self.intro(x)
        skips = []
        for encoder, down in zip(self.encoders, self.downs):
            f = encoder(f)
            skips.append(f)
            f = down(f)
        f = self.middle_blks(f)
        for decoder, up, skip in zip(self.decoders, self.ups, skips[::-1]):
            f = decoder(up(f) + skip)
        return self.ending(f) + x
