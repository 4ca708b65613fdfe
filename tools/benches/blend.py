"""Blending adapters per image, against the base network alone, K passes, and PEFT's own loop over active adapters.

Every round times all variants one after another, so that what else the machine does hits them alike; the figures are
medians over the rounds of the time and of the ratio to the base within a round, with the smallest and largest ratio.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import torch

from basicsr_plugins.adapters import BlendedNetwork, attach_adapter, find_adapters
from basicsr_plugins.core.registration import lookup

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bench.py blend``."""
    parser.add_argument("--network", default="ABAIRNet", help="any network of the package (default: ABAIRNet)")
    parser.add_argument("--preset", default="full", help="its preset (default: full)")
    parser.add_argument("--adapters", type=int, nargs="+", default=[5, 8], metavar="K", help="default: 5 8")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--size", type=int, default=256, help="side of the images (default: 256)")
    parser.add_argument("--batch", type=int, default=4, help="different images in a batch (default: 4)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: the processor's time of this process, for a CPU that is shared; of no use with CUDA",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--skip", nargs="*", default=[], help="variants to leave out: passes, peft, forms")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and return ``{"K=5": {variant: {seconds, ratio, low, high}}, ...}``."""
    torch.manual_seed(0)
    network = lookup("arch", args.network)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        base = (network(preset=args.preset) if args.preset else network()).eval()
        _write_adapters(base, Path(folder), max(args.adapters), args.rank)
        return {f"K={k}": _measure(base, Path(folder), k, args) for k in args.adapters}


def _write_adapters(base: torch.nn.Module, folder: Path, count: int, rank: int) -> None:
    for index in range(count):
        adapter = attach_adapter(copy.deepcopy(base), {"r": rank})
        for name, parameter in adapter.net.named_parameters():
            if ".lora_B." in name:
                parameter.data.normal_(std=0.02)
        adapter.save(folder / f"task{index}", name=f"task{index}")


def _measure(base: torch.nn.Module, folder: Path, count: int, args: argparse.Namespace) -> dict[str, Any]:
    dtype, device = getattr(torch, args.dtype), torch.device(args.device)
    adapters = dict(list(find_adapters(folder).items())[:count])
    x = torch.rand(args.batch, 3, args.size, args.size, device=device, dtype=dtype)
    weights = torch.rand(args.batch, count, device=device, dtype=dtype).softmax(dim=1)

    def blended(form: str = "auto") -> BlendedNetwork:
        return BlendedNetwork(copy.deepcopy(base), adapters, form=form).to(device, dtype)

    plain, ours = copy.deepcopy(base).to(device, dtype), blended()
    merged = ours.merged(weights[0])
    variants: dict[str, Callable[[], Any]] = {
        "base": lambda: plain(x),
        "base again": lambda: plain(x),  # what two timings of the same thing differ by
        "blend per image": lambda: ours(x, weights),
        "blend one vector": lambda: ours(x, weights[:1]),
        "merged": lambda: merged(x),
    }
    if "forms" not in args.skip:
        low_rank = blended("low_rank")
        variants["blend low-rank"] = lambda: low_rank(x, weights)
    if "passes" not in args.skip:
        single = [ours.merged(row) for row in torch.eye(count, device=device, dtype=dtype)]
        variants["K passes"] = lambda: sum(weights[:, k, None, None, None] * net(x) for k, net in enumerate(single))
    if "peft" not in args.skip:
        looped = _peft_loop(copy.deepcopy(base), adapters).to(device, dtype)
        variants["PEFT loop"] = lambda: looped(x)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    times = _interleaved(variants, args.rounds, device, clock)
    report = {name: _figures(times[name], times["base"]) for name in variants}
    report["difference"] = _largest_difference(ours, x, weights)
    return report


def _peft_loop(net: torch.nn.Module, adapters: dict[str, Any]) -> torch.nn.Module:
    """All adapters active at once: PEFT sums their outputs one by one, and has no weight per image."""
    import peft

    first, *others = adapters
    wrapped = peft.PeftModel.from_pretrained(net, str(adapters[first].path), adapter_name=first)
    for name in others:
        wrapped.load_adapter(str(adapters[name].path), adapter_name=name)
    wrapped.base_model.set_adapter(list(adapters))
    return net.eval()


def _interleaved(
    variants: dict[str, Callable[[], Any]], rounds: int, device: torch.device, clock: Callable[[], float]
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(rounds + 1):  # the first round warms up
        for name, call in variants.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = clock()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if index:
                times[name].append(clock() - start)
    return times


def _figures(times: list[float], base: list[float]) -> dict[str, float]:
    ratios = [mine / theirs for mine, theirs in zip(times, base)]
    figures = (statistics.median(times), statistics.median(ratios), min(ratios), max(ratios))
    return dict(zip(("seconds", "ratio", "low", "high"), (round(figure, 4) for figure in figures)))


def _largest_difference(ours: BlendedNetwork, x: torch.Tensor, weights: torch.Tensor) -> float:
    """The blend against explicitly merged weights, image by image."""
    together = ours(x, weights)
    return max(float((together[i : i + 1] - ours.merged(weights[i])(x[i : i + 1])).abs().max()) for i in range(len(x)))
