"""``basicsr-plugins export MODEL OUTPUT``: a model as safetensors, TorchScript or ONNX, compared before it counts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from basicsr_plugins.cli.shared_arguments import adapter_choice, add_adapter_choice

__all__ = ["add_parser", "run"]

_EXAMPLES = """examples:
  basicsr-plugins export net_g_latest.pth net.safetensors                # weights, and which network they are of
  basicsr-plugins export experiments/dcpt restormer.onnx                 # runs in onnxruntime, without PyTorch
  basicsr-plugins export restormer_deraining.pth restormer.pt            # TorchScript: runs in PyTorch and in C++
  basicsr-plugins export adapters derain.onnx --only rain                # one adapter, merged into its base
  basicsr-plugins export adapters both.onnx --weights rain=0.7,haze=0.3
  basicsr-plugins export net_g_latest.pth net_half.onnx --precision fp16

MODEL is a file of weights (of this package, or a published one, which is recognised), the folder of a training run, an
adapter folder, or a folder of adapter folders. The ending of OUTPUT says the format, or --format does.

Whatever is written is compared with the network in PyTorch first, at 64 x 64 and at 45 x 70 pixels, and only gets its
name if the largest difference is at most 1e-4 (fp32), 1e-2 (fp16) or 5e-2 (bf16) for images in [0, 1].

ONNX: the input is lq, the output restored, both float32 (n, c, h, w) in [0, 1] and RGB; height and width are free. The
output is not clamped. Needs pip install basicsr-plugins[onnx].
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to ``basicsr-plugins``."""
    text = "write a model as safetensors, TorchScript or ONNX, and compare it with PyTorch"
    parser = subparsers.add_parser(
        "export", help=text, description=text[0].upper() + text[1:] + ".", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", type=Path, metavar="MODEL", help="file, run folder, adapter folder, or folder of them")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the file: .safetensors, .pt or .onnx")
    parser.add_argument("--format", help="safetensors, torchscript or onnx (default: by the ending of OUTPUT)")
    parser.add_argument(
        "--precision", default="fp32", help="of weights and arithmetic: fp32 (default), fp16, or bf16 (not for onnx)"
    )
    parser.add_argument("--opset", type=int, default=17, help="version of ONNX's operators, 16 to 20 (default 17)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT where it exists")
    merged = parser.add_argument_group("adapters (merged into their base)")
    add_adapter_choice(merged)
    parser.set_defaults(func=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        OptionError: Wrong arguments, or no such model.
        CheckpointError: The model cannot be exported, or the file not be written.
        DependencyError: A package is missing.
    """
    from basicsr_plugins.export.exporter import export_model

    weights = adapter_choice(args)
    written = export_model(
        args.model, args.output, format=args.format, precision=args.precision, base=args.base,
        weights=weights, opset=args.opset, overwrite=args.overwrite,
    )  # fmt: skip
    size = written.path.stat().st_size / 1e6
    kind = written.format if written.opset is None else f"ONNX, opset {written.opset}"
    print(f"{written.path}: {written.label} ({kind}, {written.precision}, {size:.1f} MB)")
    print(
        f"  largest difference from PyTorch in fp32: {written.difference:.1e} (allowed: {written.tolerance:g}), at "
        "64 x 64 and 45 x 70 pixels"
    )
    if written.format != "safetensors":
        print(f"  {_takes(written)}")
    return 0


def _takes(written: Any) -> str:
    enlarged = "" if written.scale == 1 else f", enlarged {written.scale} times"
    padded = "" if written.multiple == 1 else f" (padded inside to multiples of {written.multiple})"
    if written.batches:
        number = "any number of images at once"
    elif written.format == "onnx":
        number = "one image at a time"
    else:
        number = "any number of images, which are run one by one"
    return f"takes images of any height and width{padded}{enlarged}; {number}"
