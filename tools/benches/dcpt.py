"""One DCPT iteration, ours against the textbook's, in one process, the two taking turns.

The textbook's iteration runs the network to its end twice, keeps both graphs, and makes one backward pass of the summed
losses. Ours stops the second forward pass behind the last tapped module, makes a backward pass for each phase and takes
the classifier in two halves of the batch, as ``DCPTModel`` does. Both use the same network and classifier; a third kind
is the textbook's iteration on the plain transcription of the network.

    python tools/bench.py dcpt --clock cpu
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from benches._measure import peak_tensor_bytes, settle, table
from torch import nn
from torch.nn import functional as F

from basicsr_plugins.archs.degradation_classifier_arch import DegradationClassifier
from basicsr_plugins.features import FeatureTap
from basicsr_plugins.losses.focal_loss import focal_loss
from basicsr_plugins.training.in_parts import losses_in_parts

BATCHES = {"Restormer": 1, "NAFNet": 8}
NETWORKS = tuple(BATCHES)
#: time and memory of ours, as parts of the textbook's on the same network; time as a part of the transcription's
TARGETS = {"time": 1.0, "memory": 0.6, "transcription_time": 0.8}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--preset", default="dcpt", help="variant of the network; dcpt is the published size")
    parser.add_argument("--classifier", choices=("published", "slim"), default="published")
    parser.add_argument(
        "--batch", type=int,
        help="images per iteration; left out, as published for NAFNet (8 per GPU), 1 for Restormer (published: 4, the "
        "textbook then needs 23 GB)",
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=128, help="side of the crop; 128 is published")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; each runs every kind of iteration once")
    parser.add_argument("--memory-only", action="store_true", help="one iteration of ours and the textbook's, no times")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall",
        help="cpu: the processor's time of this process, for a CPU that is shared; of no use with CUDA",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every network; returns medians, spreads, ratios and whether the targets were met."""
    torch.set_num_threads(args.threads)
    results = {}
    for name in args.networks:
        batch = args.batch or BATCHES[name]
        results[name] = _bench(name, argparse.Namespace(**{**vars(args), "batch": batch}))
    sys.stdout.write(table([_row(name, result) for name, result in results.items()]))
    return {"targets": TARGETS, "networks": results}


def _bench(name: str, args: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    network, plain = (_build(name, side, args) for side in ("ours", "plain"))
    plain.load_state_dict(network.state_dict(), strict=False)
    layers = network.feature_layers
    tap, to_the_end = FeatureTap(network, layers), FeatureTap(network, layers, stop_early=False)
    plain_tap = FeatureTap(plain, layers, stop_early=False)
    classifier = DegradationClassifier([s[0] for s in tap.shapes()], num_classes=5, preset=args.classifier)
    classifier = classifier.to(args.device)
    lq, gt = torch.rand(2, args.batch, 3, args.size, args.size, device=args.device)
    labels = torch.arange(args.batch, device=args.device) % 5

    def zero(net: nn.Module) -> None:
        for module in (net, classifier):
            module.zero_grad(set_to_none=True)

    def ours() -> None:
        zero(network)
        for loss in losses_in_parts(tap(lq), lambda some, images: focal_loss(classifier(some), labels[images])):
            loss.backward()
        F.l1_loss(network(gt), gt).backward()

    def textbook(net: nn.Module, features: FeatureTap) -> None:
        zero(net)
        loss = F.l1_loss(net(gt), gt)
        loss = loss + focal_loss(classifier(features(lq)), labels)
        loss.backward()

    steps = {
        "ours": ours,
        "textbook": lambda: textbook(network, to_the_end),
        "transcription": lambda: textbook(plain, plain_tap),
    }
    if args.memory_only:
        del steps["transcription"], plain, plain_tap
        memory = {kind: _peak_memory(step, [network, classifier]) for kind, step in steps.items()}
        return {
            "batch": args.batch, "size": args.size, "preset": args.preset, "classifier": args.classifier,
            "memory_bytes": memory, "ratios": _memory_ratios(memory),
        }  # fmt: skip
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    seconds = _interleaved(steps, args.repeats, clock)
    gradients = {
        kind: _gradient(step, [network, classifier]) for kind, step in steps.items() if kind != "transcription"
    }
    memory = {kind: _peak_memory(step, [network, classifier]) for kind, step in steps.items()}
    medians = {kind: statistics.median(times) for kind, times in seconds.items()}
    difference = (gradients["ours"] - gradients["textbook"]).norm() / gradients["textbook"].norm()
    ratios = {
        "time": medians["ours"] / medians["textbook"],
        **_memory_ratios(memory),
        "transcription_time": medians["ours"] / medians["transcription"],
    }
    return {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else f"cpu, {args.threads} threads",
        "clock": args.clock, "batch": args.batch, "size": args.size, "preset": args.preset,
        "classifier": args.classifier,
        "seconds_median": medians,
        "seconds_spread": {kind: [min(times), max(times)] for kind, times in seconds.items()},
        "memory_bytes": memory,
        "ratios": ratios,
        "time_ratio_per_round": sorted(a / b for a, b in zip(seconds["ours"], seconds["textbook"])),
        "gradient_difference": float(difference),
        "met": {key: ratios[key] <= target for key, target in TARGETS.items()},
    }  # fmt: skip


def _memory_ratios(memory: dict[str, dict[str, int]]) -> dict[str, float]:
    return {
        "memory": memory["ours"]["peak"] / memory["textbook"]["peak"],
        "memory_without_weights": memory["ours"]["above_weights"] / memory["textbook"]["above_weights"],
    }


def _row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    memory = result["memory_bytes"]
    if "seconds_median" not in result:
        megabytes = {f"{kind}_MB": memory[kind]["peak"] / 2**20 for kind in memory}
        return {"network": name, **megabytes, "memory": result["ratios"]["memory"]}
    seconds = result["seconds_median"]
    return {
        "network": name,
        "ours_s": seconds["ours"],
        "textbook_s": seconds["textbook"],
        "plain_s": seconds["transcription"],
        "time": result["ratios"]["time"],
        "vs_plain": result["ratios"]["transcription_time"],
        "ours_MB": memory["ours"]["peak"] / 2**20,
        "textbook_MB": memory["textbook"]["peak"] / 2**20,
        "memory": result["ratios"]["memory"],
        "gradients": result["gradient_difference"],
    }


def _build(name: str, side: str, args: argparse.Namespace) -> nn.Module:
    from references.nafnet_reference import PlainNAFNet
    from references.restormer_reference import PlainRestormer

    from basicsr_plugins.core.registration import provided

    ours = provided("arch")[name]
    if side == "ours":
        network = ours(preset=args.preset)
    else:
        given = dict(ours.presets[args.preset])
        for key in ("block_bias", "init_std", "padding"):  # DCPT's crops need no padding; its biases are off anyway
            given.pop(key, None)
        network = {"Restormer": PlainRestormer, "NAFNet": PlainNAFNet}[name](**given)
    if name == "NAFNet":  # its residual branches start at zero, which would hide them from the gradients
        for key, value in network.named_parameters():
            if key.endswith(("beta", "gamma")):
                nn.init.constant_(value, 0.5)
    return network.to(args.device)


def _interleaved(
    steps: dict[str, Callable[[], None]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for round_number in range(repeats + 1):  # the first one warms up
        # another order every round: what one step leaves in the allocator, the next one finds
        kinds = list(steps)
        for kind in kinds[round_number % len(kinds) :] + kinds[: round_number % len(kinds)]:
            settle()
            start = clock()
            steps[kind]()
            settle()
            if round_number:
                seconds[kind].append(clock() - start)
    return seconds


def _gradient(step: Callable[[], None], modules: list[nn.Module]) -> torch.Tensor:
    step()
    return torch.cat([p.grad.flatten() for module in modules for p in module.parameters() if p.grad is not None])


def _peak_memory(step: Callable[[], None], modules: list[nn.Module]) -> dict[str, int]:
    """Return the largest number of bytes in tensors during an iteration, with and without the weights."""
    weights = sum(p.numel() * p.element_size() for module in modules for p in module.parameters())
    for module in modules:
        module.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        peak = torch.cuda.max_memory_allocated() - held
        return {"peak": peak + weights, "above_weights": peak}
    peak = peak_tensor_bytes(step)
    return {"peak": weights + peak, "above_weights": peak}
