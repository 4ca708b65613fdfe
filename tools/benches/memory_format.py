"""Memory formats of a network's maps side by side: as it is, contiguous, as the norms leave them, channels-last."""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
from typing import Any, Callable
from unittest import mock

import torch
from benches._measure import interleaved, table

NETWORKS = ("Restormer", "PromptIR", "NAFNet")
#: What ChannelLayerNorm does with a map that came out channels-last: None leaves it to the package.
WAYS: dict[str, Any] = {
    "as_it_is": None,
    "contiguous": lambda x, like: x.contiguous(),
    "untouched": lambda x, like: x,
    "channels_last": None,  # the whole network and its input: train.channels_last
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["Restormer"])
    parser.add_argument("--preset", help="a smaller variant (small, tiny); the published one if left out")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=128, help="side of the square image")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--dtype", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every combination, forward and backward; returns the rows of the table."""
    rows = [_row(args, name, dtype) for name in args.networks for dtype in args.dtype]
    sys.stdout.write(table(rows))
    return {"rows": rows}


def _row(args: argparse.Namespace, name: str, dtype: str) -> dict[str, Any]:
    from basicsr_plugins.core.memory_format import channels_last
    from basicsr_plugins.core.registration import lookup
    from basicsr_plugins.launch.register import register_all

    register_all()
    network = lookup("arch", name)(**({"preset": args.preset} if args.preset else {})).to(args.device)
    image = torch.rand(args.batch, 3, args.size, args.size, device=args.device)
    steps, outputs = {}, {}
    for way, change in WAYS.items():
        net, x = copy.deepcopy(network), image
        if way == "channels_last":
            net, x = channels_last(net), image.contiguous(memory_format=torch.channels_last)
        steps[way] = _step(net, x, dtype, change)
        outputs[way] = steps[way]()
    largest = outputs["as_it_is"].abs().max()
    times = interleaved(steps, args.repeats)
    return {
        "network": name,
        "dtype": dtype,
        **{f"{way}_ms": 1000 * of["wall_median"] for way, of in times.items()},
        "difference": max(((value - outputs["as_it_is"]).abs().max() / largest).item() for value in outputs.values()),
    }


def _step(network: torch.nn.Module, image: torch.Tensor, dtype: str, change: Any) -> Callable[[], torch.Tensor]:
    def step() -> torch.Tensor:
        patch: Any = contextlib.nullcontext()
        if change:
            patch = mock.patch("basicsr_plugins.archs.layers.order_for_convolutions", change)
        with patch:
            with torch.autocast(image.device.type, torch.bfloat16, enabled=dtype == "bf16"):
                output = network(image)
            output.float().square().mean().backward()
        network.zero_grad()
        return output.detach().float()

    return step
