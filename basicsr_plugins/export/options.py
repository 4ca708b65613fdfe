"""Which kinds of file there are, what each of them can hold, and how far it may differ from PyTorch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Optional

import torch

from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError, one_of

__all__ = [
    "FORMATS",
    "OPSETS",
    "PRECISIONS",
    "TOLERANCE",
    "check_output",
    "check_packages",
    "check_precision",
    "format_of",
]

#: Format to the endings that mean it.
FORMATS = {"safetensors": (".safetensors",), "torchscript": (".pt", ".ts"), "onnx": (".onnx",)}
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
#: Largest difference from the network in fp32, as a share of the larger one of 1 and its largest output.
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
#: Below 16 there is no sum into given places, which IDT needs; 17 has the LayerNorm; PyTorch's exporter ends at 20.
OPSETS = range(16, 21)


def format_of(output: Path, name: Optional[str] = None) -> str:
    """Return the format: the named one, else the one that the ending of ``output`` means.

    Raises:
        OptionError: The name is unknown, the ending means no format, or the two contradict each other.
    """
    if name is not None and name not in FORMATS:
        raise OptionError(f"--format: {one_of(name, FORMATS, 'format')}")
    endings = {ending: kind for kind, each in FORMATS.items() for ending in each}
    meant = endings.get(output.suffix.lower())
    if name is None and meant is None:
        raise OptionError(
            f"OUTPUT: {output.name} does not end in {', '.join(endings)}, so it does not say in which format to write; "
            "give such a name, or --format."
        )
    if name is not None and meant not in (None, name):
        raise OptionError(f"--format: {name}, but {output.name} ends like {meant}; give one of the two another value.")
    if name == "safetensors" and meant is None:
        raise OptionError(f"OUTPUT: {output.name} has to end in .safetensors, by which its readers know it.")
    return name or str(meant)


def check_precision(precision: str, kind: str) -> torch.dtype:
    """Return the type of the weights.

    Raises:
        OptionError: The precision is unknown, or the format cannot hold it.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"--precision: {one_of(precision, PRECISIONS, 'precision')}")
    if (kind, precision) == ("onnx", "bf16"):
        raise OptionError(
            "--precision: bf16 is not offered for ONNX, because onnxruntime has no bf16 convolutions for the CPU and "
            "the file could not be compared; use fp16 or fp32."
        )
    return PRECISIONS[precision]


def check_packages(kind: str) -> None:
    """Look for what a format needs.

    Raises:
        DependencyError: A package is missing.
    """
    if kind != "onnx":
        return
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise DependencyError(
                f"--format onnx: the package {package} is missing: pip install basicsr-plugins[onnx]."
            )


def check_output(output: Path, overwrite: bool) -> None:
    """Look whether the output may be written.

    Raises:
        OptionError: Its folder is not there, or it is a folder itself.
        CheckpointError: There is such a file, and it is not to be replaced.
    """
    if not output.parent.is_dir():
        raise OptionError(f"OUTPUT: the folder {output.parent} does not exist; create it, or name another.")
    if output.is_dir():
        raise OptionError(f"OUTPUT: {output} is a folder; name a file in it.")
    if output.exists() and not overwrite:
        raise CheckpointError(f"OUTPUT: {output} exists already; add --overwrite to replace it, or name another file.")
