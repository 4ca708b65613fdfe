"""One way to build every network small."""

from __future__ import annotations

import torch

from basicsr_plugins.core.registration import provided

#: Arguments of a small variant where there is no preset called tiny, and what a preset needs beside it.
SMALL = {
    "DCPTSwinIR": {"img_size": 16, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2]},
    "DegradationClassifier": {"feature_dims": [8, 16], "num_res_blocks": 1, "num_classes": 4},
    "RestorationResNet": {"num_feat": 8, "num_block": 2},
    "SegmentationHead": {"num_classes": 5, "in_channels": 8, "width": 4},
    "UNet": {"num_feat": 8, "num_level": 2},
    "VQGAN": {
        "n_embed": 16, "embed_dim": 8,
        "ddconfig": {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "resolution": 16,
                     "z_channels": 8},
    },
}  # fmt: skip
BESIDE_A_PRESET = {
    "DegradationClassifier": {"feature_dims": [48, 96]},
    "DegradationEstimator": {"classes": ["rain", "haze"]},
    "NAFNetLocal": {"train_size": [1, 3, 32, 32]},
}


def arguments_of(name, preset=None):
    """Return the arguments of a preset, or of the smallest variant."""
    presets = getattr(provided("arch")[name], "presets", {})
    preset = preset or ("tiny" if "tiny" in presets else None)
    return SMALL[name] if preset is None else {"preset": preset, **BESIDE_A_PRESET.get(name, {})}


def built(name, preset=None):
    """Return a network none of whose values is the one that its constructor would give."""
    torch.manual_seed(1)
    network = provided("arch")[name](**arguments_of(name, preset))
    with torch.no_grad():
        for value in network.parameters():
            value.add_(torch.rand_like(value), alpha=0.1)
    return network.eval()
