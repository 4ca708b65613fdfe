"""``export_model``: one model into one file that is known to give the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Union

import torch
from torch import Tensor

from basicsr_plugins import checkpoints
from basicsr_plugins.core.atomic import atomic_named
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.export.compare import ONE_IMAGE, SEVERAL_IMAGES, largest_difference
from basicsr_plugins.export.holds import what_holds
from basicsr_plugins.export.network import AnySize, Plain, plain_network
from basicsr_plugins.export.onnx_file import read_onnx, record_onnx, write_onnx
from basicsr_plugins.export.options import (
    OPSETS,
    TOLERANCE,
    check_output,
    check_packages,
    check_precision,
    format_of,
)
from basicsr_plugins.export.recording import example, in_precision, quietly
from basicsr_plugins.export.torchscript import read_torchscript, record_torchscript, write_torchscript

__all__ = ["Exported", "export_model"]

Restore = Callable[[Tensor], Tensor]
PathLike = Union[str, Path]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: The file.
        label: The model.
        format: ``safetensors``, ``torchscript`` or ``onnx``.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        difference: The largest one from the network in fp32, as a share of the larger one of 1 and its largest output.
        tolerance: How large it might have been.
        scale: Side of the output over side of the input.
        multiple: What the file pads images to by itself, beyond what the network does; 1: nothing.
        batches: Whether it takes several images at once.
        opset: Of an ONNX file.
    """

    path: Path
    label: str
    format: str
    precision: str
    difference: float
    tolerance: float
    scale: int
    multiple: int
    batches: bool
    opset: Optional[int] = None


def export_model(
    model: Optional[PathLike],
    output: PathLike,
    *,
    format: Optional[str] = None,  # noqa: A002
    precision: str = "fp32",
    weights: Union[str, Mapping[str, float], None] = None,
    base: Optional[PathLike] = None,
    opset: int = 17,
    overwrite: bool = False,
) -> Exported:
    """Write a model as one file of another format, and compare it with the network before it gets its name.

    The comparison runs the finished file on 64 x 64 and on 45 x 70 pixels: safetensors are loaded again, TorchScript
    runs in torch, ONNX in onnxruntime.

    Args:
        model: A file of weights (ours, or a published one, which is recognised), the folder of a training run, an
            adapter folder, or a folder of adapter folders.
        output: The file to write.
        format: ``safetensors``, ``torchscript`` or ``onnx``; None takes what the ending of ``output`` means.
        precision: Of the weights and of what is computed with them: ``fp32``, ``fp16`` or ``bf16`` (not in ONNX).
            Images are float32 whatever it is.
        weights: Of several adapters, which are merged with them: ``{"rain": 0.7, "haze": 0.3}``, or one adapter's name.
        base: The base network of adapters, where it is not at its recorded place.
        opset: Version of the operators of an ONNX file, 16 to 20.
        overwrite: Replace a file that stands in the way.

    Raises:
        OptionError: An argument is wrong, or there is no such model.
        CheckpointError: The model cannot be used or exported, the file differs from it or cannot be written.
        DependencyError: The packages for ONNX are missing.

    Example:
        >>> import tempfile
        >>> from basicsr_plugins import checkpoints
        >>> from basicsr_plugins.archs.nafnet_arch import NAFNet
        >>> arguments = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
        >>> folder = tempfile.TemporaryDirectory()
        >>> weights = NAFNet(**arguments).state_dict()
        >>> checkpoints.write(f"{folder.name}/net_g_latest.pth", weights, {"type": "NAFNet", **arguments})

        >>> written = export_model(f"{folder.name}/net_g_latest.pth", f"{folder.name}/net.safetensors")
        >>> written.format, written.difference
        ('safetensors', 0.0)
        >>> type(checkpoints.load(written.path)).__name__
        'NAFNet'
        >>> folder.cleanup()
    """
    output = Path(output).expanduser()
    kind = format_of(output, format)
    dtype = check_precision(precision, kind)
    if opset not in OPSETS:
        raise OptionError(f"--opset: must lie between {OPSETS[0]} and {OPSETS[-1]}, got {opset}.")
    check_packages(kind)
    check_output(output, overwrite)
    plain = plain_network(model, weights, base)
    with atomic_named(output) as temporary:
        if kind == "safetensors":
            found = _safetensors(temporary, plain, dtype, precision)
        else:
            found = _recorded(temporary, plain, kind, dtype, precision, opset)
        check_output(output, overwrite)  # it took a while
    return Exported(
        output, plain.label, kind, precision, found[0], TOLERANCE[precision], plain.scale, found[1], found[2],
        opset if kind == "onnx" else None,
    )  # fmt: skip


def _safetensors(path: Path, plain: Plain, dtype: torch.dtype, precision: str) -> tuple[float, int, bool]:
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in _state(plain).items()}
    checkpoints.write(path, state, plain.network_opt)
    again = AnySize(checkpoints.load(path), plain.multiple, plain.scale)
    difference = largest_difference(again, plain.any_size(), plain.channels)
    _within(difference, precision, path)
    return difference, 1, True


def _state(plain: Plain) -> dict[str, Tensor]:
    return plain.network.state_dict()


def _recorded(
    path: Path, plain: Plain, kind: str, dtype: torch.dtype, precision: str, opset: int
) -> tuple[float, int, bool]:
    """Record, write and compare; what a recording holds for is found in float32, where errors are no rounding."""

    def restore(multiple: int, batches: bool, dtype: torch.dtype, precision: str) -> Restore:
        facts = {"precision": precision, "pads_to": multiple, "batches": batches}
        if kind == "onnx":
            write_onnx(record_onnx(plain, multiple, dtype, batches, opset), path, plain, {**facts, "opset": opset})
            return read_onnx(path)
        write_torchscript(record_torchscript(plain, multiple, dtype, batches), path, plain, facts)
        return read_torchscript(path)

    multiple, batches, difference = what_holds(
        plain, lambda multiple, batches: restore(multiple, batches, torch.float32, "fp32")
    )
    if dtype != torch.float32:
        with quietly(
            f"--precision: {plain.label} does not compute in {precision} by itself; take fp32, or safetensors"
        ):
            in_precision(plain, multiple, dtype)(example(plain))
        sizes = [*ONE_IMAGE, *(SEVERAL_IMAGES if batches else ())]
        half = restore(multiple, batches, dtype, precision)
        difference = largest_difference(half, plain.any_size(), plain.channels, sizes)
    _within(difference, precision, path)
    return difference, multiple, batches


def _within(difference: float, precision: str, path: Path) -> None:
    if not difference <= TOLERANCE[precision]:
        raise CheckpointError(
            f"{path.name} differs from the network by {difference:.2g}, more than {TOLERANCE[precision]:g} "
            f"({precision}), and was not kept."
        )
