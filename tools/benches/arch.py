"""Our networks against a plain transcription of the published formulas: time, peak memory, equality."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import torch
from benches._measure import interleaved, peak_megabytes, table

NETWORKS = ("Restormer", "PromptIR", "NAFNet")
MODES = ("forward", "train")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["Restormer", "PromptIR"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 256], help="sides of the square image")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="train: forward and backward")
    parser.add_argument("--preset", help="a smaller variant (small, tiny); the published one if left out")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="+", choices=("fp32", "bf16"), default=["fp32"], help="bf16 is autocast")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory (two processes per row)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every combination; returns the rows of the table."""
    torch.set_num_threads(args.threads)
    if args.memory_of:
        return _memory_of(args)
    rows = []
    for name in args.networks:
        for size in args.sizes:
            for dtype in args.dtype:
                for mode in args.modes:
                    rows.append(_row(args, name, size, dtype, mode))
                    sys.stdout.write(table(rows[-1:]))
                    sys.stdout.flush()
    sys.stdout.write("\n" + table(rows))
    return {"rows": rows}


def _row(args: argparse.Namespace, name: str, size: int, dtype: str, mode: str) -> dict[str, Any]:
    pair = {side: _build(name, side, args) for side in ("plain", "ours")}
    pair["ours"].load_state_dict(pair["plain"].state_dict(), strict=False)
    x = torch.rand(args.batch, 3, size, size, device=args.device)
    with torch.no_grad():
        expected = pair["plain"](x)
        difference = ((pair["ours"](x) - expected).abs().max() / expected.abs().max()).item()
    times = interleaved({side: _step(network, x, dtype, mode) for side, network in pair.items()}, args.repeats)
    plain, ours = times["plain"], times["ours"]
    row: dict[str, Any] = {
        "network": name,
        "size": size,
        "dtype": dtype,
        "mode": mode,
        "plain_s": plain["wall_median"],
        "ours_s": ours["wall_median"],
        "ratio": ours["wall_median"] / plain["wall_median"],
        "ratio_min": ours["wall_min"] / plain["wall_min"],
        "ratio_cpu": ours["cpu_median"] / plain["cpu_median"],
        "spread": f"{ours['wall_min']:.2f}-{ours['wall_max']:.2f}/{plain['wall_min']:.2f}-{plain['wall_max']:.2f}",
        "difference": difference,
    }
    if not args.no_memory:
        del pair, times
        for side in ("plain", "ours"):
            row[f"{side}_MB"] = _child(args, name, size, dtype, mode, side)
    return row


def _build(name: str, side: str, args: argparse.Namespace) -> torch.nn.Module:
    from references.nafnet_reference import PlainNAFNet
    from references.restormer_reference import PlainPromptIR, PlainRestormer

    from basicsr_plugins.core.registration import provided

    torch.manual_seed(0)
    ours = provided("arch")[name]
    preset = args.preset or ("gopro_width32" if name == "NAFNet" else None)
    if side == "ours":
        network = ours(preset=preset)
    else:
        kwargs = {key: value for key, value in ours.presets.get(preset, {}).items() if key != "unused_layers"}
        network = {"Restormer": PlainRestormer, "PromptIR": PlainPromptIR, "NAFNet": PlainNAFNet}[name](**kwargs)
    if name == "NAFNet":  # its residual branches start at zero, which would hide them from the comparison
        for key, value in network.named_parameters():
            if key.endswith(("beta", "gamma")):
                torch.nn.init.constant_(value, 0.5)
    return network.to(args.device)


def _step(network: torch.nn.Module, x: torch.Tensor, dtype: str, mode: str) -> Callable[[], Any]:
    autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == "bf16")

    def forward() -> Any:
        with torch.no_grad(), autocast:
            return network(x)

    def train() -> Any:
        network.zero_grad(set_to_none=True)
        with autocast:
            loss = (network(x) - x).abs().mean()
        loss.backward()

    return forward if mode == "forward" else train


def _child(args: argparse.Namespace, name: str, size: int, dtype: str, mode: str, side: str) -> float:
    command = [sys.executable, str(Path(__file__).resolve().parents[1] / "bench.py"), "arch", "--memory-of", side,
               "--networks", name, "--sizes", str(size), "--dtype", dtype, "--modes", mode, "--batch", str(args.batch),
               "--threads", str(args.threads), "--device", args.device, "--json", "/dev/null"]  # fmt: skip
    if args.preset:
        command += ["--preset", args.preset]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[0])["peak_MB"]


def _memory_of(args: argparse.Namespace) -> dict[str, Any]:
    def prepare() -> Callable[[], Any]:
        network = _build(args.networks[0], args.memory_of, args)
        x = torch.rand(args.batch, 3, args.sizes[0], args.sizes[0], device=args.device)
        # what a first run allocates for good (thread pools, kernels) is not the network's
        small = torch.rand(1, 3, 16, 16, device=args.device)
        _step(network, small, args.dtype[0], args.modes[0])()
        return _step(network, x, args.dtype[0], args.modes[0])

    result = {"peak_MB": peak_megabytes(prepare)}
    sys.stdout.write(json.dumps(result) + "\n")
    return result
