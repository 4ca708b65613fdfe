"""Restormer, PromptIR, DehazeFormer and IDT."""

from __future__ import annotations

import re
from typing import Any

from basicsr_plugins.checkpoints.variants.common import Shapes, Variant, count, width_factor, window_size

__all__ = ["DEHAZEFORMER", "IDT", "PROMPTIR", "RESTORMER"]

_STAGES = r"encoder_level[123]|latent|decoder_level[123]|refinement"


def _read_levels(shapes: Shapes) -> dict[str, Any]:
    """What Restormer and PromptIR have in common."""
    dim, channels = shapes["patch_embed.proj.weight"][:2]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    hidden = [shapes[f"{name}.0.ffn.project_out.weight"][:2] for name in levels]
    return {
        "inp_channels": channels,
        "dim": dim,
        "num_blocks": [count(shapes, name) for name in levels],
        "num_refinement_blocks": count(shapes, "refinement"),
        "heads": [shapes[f"{name}.0.attn.temperature"][0] for name in levels],
        "ffn_expansion_factor": width_factor(hidden, 2.66),
        "LayerNorm_type": "WithBias" if "latent.0.norm1.body.bias" in shapes else "BiasFree",
    }


def _read_restormer(shapes: Shapes) -> dict[str, Any]:
    outputs = count(shapes, "output")
    scale = {4: 2, 16: 4}.get(outputs, 1)
    bias, block_bias = "reduce_chan_level3.bias" in shapes, "latent.0.attn.qkv.bias" in shapes
    found = {
        **_read_levels(shapes),
        "out_channels": shapes["output.0.weight" if outputs else "output.weight"][0],
        "bias": bias,
        "dual_pixel_task": "skip_conv.weight" in shapes,
        "scale": scale,
    }
    return found if block_bias == bias else {**found, "block_bias": block_bias}


def _read_promptir(shapes: Shapes) -> dict[str, Any]:
    prompts = [shapes[f"prompt{level}.prompt_param"] for level in (1, 2, 3)]
    return {
        **_read_levels(shapes),
        "out_channels": shapes["output.weight"][0],
        "bias": "reduce_chan_level3.bias" in shapes,
        "prompt_dims": [prompt[2] for prompt in prompts],
        "prompt_sizes": [prompt[3] for prompt in prompts],
        "unused_layers": "chnl_reduce1.weight" in shapes,
    }


def _read_dehazeformer(shapes: Shapes) -> dict[str, Any]:
    stages = [f"layer{stage}.blocks" for stage in range(1, 6)]
    depths = [count(shapes, stage) for stage in stages]
    dims = [
        *(
            shapes[key][0]
            for key in ("patch_embed.proj.weight", "patch_merge1.proj.weight", "patch_merge2.proj.weight")
        ),
        *(shapes[key][0] // 4 for key in ("patch_split1.proj.0.weight", "patch_split2.proj.0.weight")),
    ]
    heads, shares, convs, windows = [], [], [], []
    for stage, depth in zip(stages, depths):
        attending = [i for i in range(depth) if f"{stage}.{i}.attn.QK.weight" in shapes]
        shares.append(len(attending) / depth if depth else 0.0)
        last = f"{stage}.{depth - 1}.attn"
        heads.append(shapes[f"{last}.attn.meta.2.bias"][0] if attending else 1)
        if attending:
            windows.append(round(shapes[f"{last}.attn.relative_positions"][0] ** 0.5))
        convs.append(
            "DWConv" if f"{last}.conv.weight" in shapes else "Conv" if f"{last}.conv.0.weight" in shapes else None
        )
    return {
        "in_chans": shapes["patch_embed.proj.weight"][1],
        "window_size": windows[0] if windows else 8,
        "embed_dims": dims,
        "mlp_ratios": [
            width_factor([shapes[f"{stage}.0.mlp.mlp.0.weight"][1::-1]], 2.0) if depth else 2.0
            for stage, depth in zip(stages, depths)
        ],
        "depths": depths,
        "num_heads": heads,
        "attn_ratio": shares,
        "conv_type": convs,
    }


def _read_idt(shapes: Shapes) -> dict[str, Any]:
    stages = [*(f"encoderlayer_{i}" for i in range(4)), "bottle", *(f"decoderlayer_{i}" for i in range(4))]
    embed, channels = shapes["input_proj.proj.0.weight"][:2]
    tables = [shapes[f"{stage}.blocks.0.attn.relative_position_bias_table"] for stage in stages]
    # the deepest cross block's kernel is as wide as its grid of patches allows; beyond 128 it no longer grows
    kernel = shapes["encoderlayer_3.blocks.2.attn.Position_Extract.0.weight"][-1]
    return {
        "img_size": {1: 64, 3: 128}.get(kernel, 256),
        "in_chans": channels,
        "embed_dim": embed,
        "num_heads": [table[1] for table in tables],
        "win_size": window_size(tables[0]),
        "mlp_ratio": width_factor([shapes["encoderlayer_0.blocks.0.mlp.linear1.0.weight"][1::-1]], 4.0),
        "qkv_bias": "bottle.blocks.0.attn.qkv.to_q.bias" in shapes,
    }


RESTORMER = Variant(
    name="Restormer",
    marks=(
        r"^latent\.\d+\.attn\.temperature$",
        r"^skip_conv\.|^patch_embed\.proj\.weight$",
        r"^up4_3\.body\.0\.weight$",
    ),
    read=_read_restormer,
    dcpt_marks=(r"^latent\.body\.\d+\.attn\.temperature$",),
    # only the level directly below a stage goes; norm1.body and down1_2.body stay
    rename_dcpt=lambda key, shapes: re.sub(rf"^({_STAGES})\.body\.(\d+)\.", r"\1.\2.", key),
    dcpt_arguments={"attention": "relu", "eps": 1e-6, "block_bias": False},
)
PROMPTIR = Variant(
    name="PromptIR",
    marks=(r"^prompt1\.prompt_param$",),
    read=_read_promptir,
    # DCPT dropped the layers that nothing uses; with them the weights also fit the published network
    dcpt_arguments={"unused_layers": True},
    assumed=("unused_layers",),
    unused=(
        "chnl_reduce1", "chnl_reduce2", "chnl_reduce3",
        "reduce_noise_channel_1", "reduce_noise_channel_2", "reduce_noise_channel_3",
    ),
)  # fmt: skip
DEHAZEFORMER = Variant(
    name="DehazeFormer",
    marks=(r"^patch_merge1\.proj\.weight$", r"^fusion1\.mlp\.0\.weight$"),
    read=_read_dehazeformer,
    derived=r"\.relative_positions$",
)
IDT = Variant(name="IDT", marks=(r"^dowsample_0\.conv\.0\.weight$",), read=_read_idt, assumed=("img_size",))
