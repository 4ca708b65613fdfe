"""NAFNet, FFA-Net and the degradation classifier."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from basicsr_plugins.checkpoints.variants.common import Shapes, Variant, count

__all__ = ["CLASSIFIER", "FFANET", "NAFNET", "NAFNET_LOCAL"]


def _read_nafnet(shapes: Shapes) -> dict[str, Any]:
    width, channels = shapes["intro.weight"][:2]
    return {
        "img_channel": channels,
        "width": width,
        "middle_blk_num": count(shapes, "middle_blks"),
        "enc_blk_nums": [count(shapes, f"encoders.{level}") for level in range(count(shapes, "encoders"))],
        "dec_blk_nums": [count(shapes, f"decoders.{level}") for level in range(count(shapes, "decoders"))],
    }


def _read_ffanet(shapes: Shapes) -> dict[str, Any]:
    # the convolution at a group's end is numbered like a block
    blocks = {key.split(".")[2] for key in shapes if re.match(r"g1\.gp\.\d+\.conv1\.weight$", key)}
    return {"gps": 3, "blocks": len(blocks)}


def _read_classifier(shapes: Shapes) -> dict[str, Any]:
    widths = [shapes[f"downsample_layers.{i}.0.weight"][1] for i in range(shapes["mixing_weights"][0])]
    projected = {i: shapes.get(f"projections.{i}.weight") for i in range(len(widths))}
    dims = [shape[1] if shape else width for shape, width in zip(projected.values(), widths)]
    found: dict[str, Any] = {
        "feature_dims": dims,
        "num_res_blocks": count(shapes, "last_stage"),
        "num_classes": shapes["fc.weight"][0],
        # equal widths in all stages are those of a network whose features all have the image's size
        "downsample": len(dims) > 1 and len(set(dims)) == 1,
    }
    if found["num_res_blocks"]:
        mid, width = shapes["last_stage.0.conv1.weight"][:2]
        found["expansion"] = mid // width
    if dims != widths:
        found["max_width"] = max(widths)
    return found


NAFNET = Variant(
    name="NAFNet",
    marks=(r"^intro\.weight$", r"^ending\.weight$", r"^middle_blks\.0\.|^encoders\.0\.0\.beta$"),
    read=_read_nafnet,
    dcpt_marks=(r"^intro\.weight$", r"^decoder0\.0\.beta$"),
    rename_dcpt=lambda key, shapes: re.sub(r"^decoder(\d+)\.", r"decoders.\1.", key),
    # DCPT's network pads nothing and its test harness reflects
    dcpt_arguments={"padding": "reflect"},
)
NAFNET_LOCAL = dataclasses.replace(
    NAFNET, name="NAFNetLocal", dcpt_arguments={"padding": "reflect", "train_size": [1, 3, 128, 128]}
)
FFANET = Variant(name="FFANet", marks=(r"^g1\.gp\.0\.", r"^post\.1\.weight$"), read=_read_ffanet)
CLASSIFIER = Variant(
    name="DegradationClassifier",
    marks=(r"^mixing_weights$", r"^bottleneck_layers\.0\."),
    read=_read_classifier,
    assumed=("downsample",),
)
