"""Small variants of every network that restores, ours and some of stock's, and files of their weights."""

from __future__ import annotations

import torch

from basicsr_plugins import checkpoints
from basicsr_plugins.checkpoints.convert import constructor_of
from basicsr_plugins.core.registration import provided

#: Networks of ours that do not map an image to an image.
NO_RESTORERS = ("DegradationClassifier", "DegradationEstimator", "SegmentationHead")
#: Arguments of networks without a preset called tiny, or beside it.
SMALL = {
    "DCPTSwinIR": {"img_size": 16, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2]},
    "NAFNetLocal": {"preset": "tiny", "train_size": [1, 3, 32, 32]},
    "RestorationResNet": {"num_feat": 8, "num_block": 2},
    "UNet": {"num_feat": 8, "num_level": 2},
    "VQGAN": {
        "ddconfig": {
            "z_channels": 4, "resolution": 16, "ch": 32, "ch_mult": [1, 1],
            "num_res_blocks": 1, "attn_resolutions": [8],
        },
        "n_embed": 16, "embed_dim": 4, "unit_range": True,
    },
}  # fmt: skip
#: Stock networks: enlarging ones, one that takes sides of certain multiples, one whose windows need padding.
STOCK = {
    "EDSR": {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "upscale": 2},
    "RRDBNet": {"num_in_ch": 3, "num_out_ch": 3, "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4},
    "SwinIR": {"img_size": 32, "window_size": 8, "embed_dim": 12, "depths": [2], "num_heads": [2], "upscale": 2,
               "upsampler": "pixelshuffledirect"},
}  # fmt: skip


def arguments_of(name):
    """Return the arguments of a small variant; a new network joins by a preset called tiny or an entry in SMALL."""
    return SMALL.get(name) or STOCK.get(name) or {"preset": "tiny"}


OURS = [name for name in sorted(provided("arch")) if name not in NO_RESTORERS]


def small(name):
    """Build a small variant in which every branch says something."""
    torch.manual_seed(0)
    network = constructor_of(name)(**arguments_of(name))
    for key, value in network.named_parameters():
        if key.endswith((".beta", ".gamma")):  # NAFNet's branches start at zero
            torch.nn.init.constant_(value, 0.5)
    return network.eval()


def write_small(name, path):
    """Write a file of its weights, as a run does; return the network."""
    network = small(name)
    checkpoints.write(path, network.state_dict(), {"type": name, **arguments_of(name)})
    return network
