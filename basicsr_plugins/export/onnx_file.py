"""A network as ONNX: runs in onnxruntime and whatever else reads the format, without PyTorch."""

from __future__ import annotations

import inspect
import io
import json
from pathlib import Path
from typing import Any, Callable

import torch
from torch import Tensor

from basicsr_plugins.export.network import Plain
from basicsr_plugins.export.recording import example, in_precision, notes, quietly

__all__ = ["INPUT", "OUTPUT", "read_onnx", "record_onnx", "write_onnx"]

INPUT, OUTPUT = "lq", "restored"


def record_onnx(plain: Plain, multiple: int, dtype: torch.dtype, batches: bool, opset: int) -> Any:
    """Return the network as an ``onnx.ModelProto`` with free height and width.

    The exporter is the one that records: it is in every torch since 2.0, takes seconds, and every network's padding
    is written for it. The newer one decides about sizes while it looks at the code, and fixes them.

    Args:
        plain: The network.
        multiple: What images are padded to inside.
        dtype: What it computes in; input and output are float32.
        batches: Whether the number of images is free as well; else it is 1.
        opset: The version of ONNX's operators.

    Raises:
        CheckpointError: It cannot be recorded.
    """
    import onnx

    free = {0: "n", 2: "h", 3: "w"} if batches else {2: "h", 3: "w"}
    larger = {0: "n", 2: "h_out", 3: "w_out"} if batches else {2: "h_out", 3: "w_out"}
    settings: dict[str, Any] = {
        "opset_version": opset, "input_names": [INPUT], "output_names": [OUTPUT],
        "dynamic_axes": {INPUT: free, OUTPUT: free if plain.scale == 1 else larger},
    }  # fmt: skip
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:  # torch 2.5
        settings["dynamo"] = False
    content = io.BytesIO()
    export: Any = torch.onnx.export  # its types do not know of files in memory
    with quietly(f"{type(plain.network).__name__} cannot be exported to ONNX, opset {opset}"):
        export(in_precision(plain, multiple, dtype), (example(plain),), content, **settings)
        return onnx.load_model_from_string(content.getvalue())


def write_onnx(model: Any, path: Path, plain: Plain, facts: dict[str, Any]) -> None:
    """Check the model against the format's rules, and write it with what there is to know about it."""
    import onnx

    content = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in notes(plain, facts).items()
    }
    onnx.helper.set_model_props(model, content)
    with quietly("the ONNX file breaks the format's rules"):
        onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def read_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Return what the file computes in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception too
    options.intra_op_num_threads = torch.get_num_threads()
    with quietly(f"onnxruntime cannot run {path.name}"):
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def restore(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return restore
