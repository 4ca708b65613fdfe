"""Stock SwinIR and DCPT's."""

from __future__ import annotations

import re
from typing import Any

from basicsr_plugins.checkpoints.variants.common import Shapes, Variant, count, width_factor, window_size

__all__ = ["DCPT_SWINIR", "SWINIR"]

_BLOCK = "layers.0.residual_group.blocks"


def _read(shapes: Shapes) -> dict[str, Any]:
    embed, channels = shapes["conv_first.weight"][:2]
    groups = count(shapes, "layers")
    depths = [count(shapes, f"layers.{i}.residual_group.blocks") for i in range(groups)]
    return {
        "in_chans": channels,
        "embed_dim": embed,
        "depths": depths,
        "mlp_ratio": width_factor([shapes[f"{_BLOCK}.0.mlp.fc1.weight"][1::-1]], 2.0),
        "qkv_bias": f"{_BLOCK}.0.attn.qkv.bias" in shapes,
        "ape": "absolute_pos_embed" in shapes,
        "patch_norm": "patch_embed.norm.weight" in shapes,
        "resi_connection": "1conv" if "conv_after_body.weight" in shapes else "3conv",
        **_read_head(shapes, channels),
    }


def _read_head(shapes: Shapes, channels: int) -> dict[str, Any]:
    if "conv_up1.weight" in shapes:
        return {"upsampler": "nearest+conv", "upscale": 4 if "conv_up2.weight" in shapes else 2}
    if "conv_before_upsample.0.weight" in shapes:
        factor = 3 if shapes["upsample.0.weight"][0] == 576 else 2 ** ((count(shapes, "upsample") + 1) // 2)
        return {"upsampler": "pixelshuffle", "upscale": factor}
    if "upsample.0.weight" in shapes:
        return {"upsampler": "pixelshuffledirect", "upscale": round((shapes["upsample.0.weight"][0] / channels) ** 0.5)}
    return {"upsampler": "", "upscale": 1}


def _read_tables(shapes: Shapes) -> dict[str, Any]:
    """What the bias tables and the masks of a stock SwinIR show."""
    groups = count(shapes, "layers")
    tables = [shapes[f"layers.{i}.residual_group.blocks.0.attn.relative_position_bias_table"] for i in range(groups)]
    window = window_size(tables[0])
    found: dict[str, Any] = {"num_heads": [table[1] for table in tables], "window_size": window}
    mask = shapes.get(f"{_BLOCK}.1.attn_mask")
    if "absolute_pos_embed" in shapes:
        found["img_size"] = round(shapes["absolute_pos_embed"][1] ** 0.5)
    elif mask:
        found["img_size"] = round(mask[0] ** 0.5) * window
    return found


def _read_stock(shapes: Shapes) -> dict[str, Any]:
    return {**_read(shapes), **_read_tables(shapes)}


def _read_dcpt(shapes: Shapes) -> dict[str, Any]:
    found = _read(shapes)
    if f"{_BLOCK}.0.attn.relative_position_bias_table" in shapes:
        return {**found, **_read_tables(shapes), "position_bias": True}
    # without tables nothing shows the heads: the released ones have six in each group
    return {**found, "num_heads": [6] * len(found["depths"])}


def _rename(key: str, shapes: Shapes) -> str:
    encoder_groups = count(shapes, "encode_layers")
    key = re.sub(r"^encode_layers\.", "layers.", key)
    return re.sub(r"^decode_layers(\d+)\.", lambda found: f"layers.{int(found.group(1)) + encoder_groups}.", key)


SWINIR = Variant(
    name="SwinIR",
    marks=(rf"^{re.escape(_BLOCK)}\.0\.attn\.relative_position_bias_table$", r"^conv_first\.weight$"),
    read=_read_stock,
    assumed=("img_size",),
    derived=r"\.(attn_mask|relative_position_index)$",
)
DCPT_SWINIR = Variant(
    name="DCPTSwinIR",
    marks=(rf"^{re.escape(_BLOCK)}\.0\.attn\.qkv\.weight$", r"^conv_first\.weight$"),
    read=_read_dcpt,
    dcpt_marks=(r"^encode_layers\.0\.", r"^decode_layers0\."),
    rename_dcpt=_rename,
    assumed=("num_heads", "window_size", "img_size"),
    derived=r"\.(attn_mask|relative_position_index)$",
)
