"""Cost of an SPN training step: ours against the textbook's, in one process, the two taking turns.

The textbook's step runs N negative forwards and then, for each negative, a full perceptual loss: a VGG pass over the
output with a graph and one over the negative. Both steps start from the same weights and must give the same gradient.

    python tools/bench.py spn --network edsr nafnet
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from benches._measure import peak_tensor_bytes, settle
from torch import nn
from torch.nn import functional as F

from basicsr_plugins.losses.perceptual_features import IMAGENET_MEAN, IMAGENET_STD
from basicsr_plugins.losses.spn_loss import SPN_LAYERS, SPNLoss
from basicsr_plugins.negatives import NegativeModels

#: time and memory of four negatives, and time of one negative per step, as parts of the textbook's
TARGETS = {"edsr": (0.70, 0.60, 0.45), "nafnet": (0.75, 0.60, 0.45)}
STEPS = (100, 500, 1000, 2000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this bench's options."""
    parser.add_argument("--network", nargs="+", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--batch", type=int, default=16, help="images per step; 16 is EDSR's")
    parser.add_argument("--size", type=int, default=64, help="side of the clean crop")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; each runs every kind of step once")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: the processor's time of this process, for a CPU that is shared; of no use with CUDA",
    )
    parser.add_argument("--negative-batch", type=int, default=None, help="negatives per VGG pass; all by default")
    parser.add_argument("--forward-precision", default=None, help="fp32, bf16 or fp16 for the negatives' outputs")
    parser.add_argument("--negative-precision", default="fp32", help="the same for their pass through the VGG")
    parser.add_argument("--vgg-weights", default="random", help="auto, random or a path; cost does not depend on it")


class TextbookPerceptual(nn.Module):
    """A perceptual loss as BasicSR's, which the released code calls once per negative: a loop over torchvision's VGG16
    layers that clones each tapped feature (the next ReLU works in place), and an L1 per layer.
    """

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        from torchvision.models.vgg import cfgs, make_layers

        self.taps = {3: SPN_LAYERS["relu1_2"], 8: SPN_LAYERS["relu2_2"], 15: SPN_LAYERS["relu3_3"]}
        self.net = make_layers(cfgs["D"])[:16].requires_grad_(False).eval()
        convolutions = [layer for layer in self.net if isinstance(layer, nn.Conv2d)]
        for layer, key in zip(convolutions, [key for key in state if key.endswith("weight")]):
            layer.weight.data.copy_(state[key])
            layer.bias.data.copy_(state[key.replace("weight", "bias")])
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = (x - self.mean) / self.std
        found = []
        for index, layer in enumerate(self.net):
            x = layer(x)
            if index in self.taps:
                found.append(x.clone())
        return found

    def forward(self, x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        pairs = zip(self.taps.values(), self.features(x), self.features(reference.detach()))
        return sum(weight * F.l1_loss(own, other) for weight, own, other in pairs)


def build_network(name: str) -> tuple[nn.Module, int]:
    """Return a network of the published size and its scale."""
    if name == "edsr":
        from basicsr_plugins._startup import _basicsr_plugins_bootstrap as bootstrap

        bootstrap.install_compat()
        from basicsr.archs.edsr_arch import EDSR

        return EDSR(3, 3, num_feat=64, num_block=16, upscale=4, res_scale=1, img_range=255.0), 4
    from basicsr_plugins.archs.nafnet_arch import NAFNet

    widths = {"width": 32, "enc_blk_nums": [1, 1, 1, 28], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 1, 1]}
    return NAFNet(**widths), 1


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return medians, spreads and ratios for each network."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {name: _bench(name, args, device) for name in args.network}


def _bench(name: str, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(0)
    net, scale = build_network(name)
    net = net.to(device)
    lq = torch.rand(args.batch, 3, args.size // scale, args.size // scale, device=device)
    gt = torch.rand(args.batch, 3, args.size, args.size, device=device)
    loss = SPNLoss(
        weights=args.vgg_weights, negative_precision=args.negative_precision, negative_batch=args.negative_batch
    ).to(device)
    textbook_loss = TextbookPerceptual(loss.distance.features.net.state_dict()).to(device)
    options = {"steps": STEPS, "precision": args.forward_precision, "channels_last": True}
    every = NegativeModels(net, **options)
    # negatives that differ from the network and from each other, as after some thousand iterations
    with torch.no_grad():
        for index, negative in enumerate(every.models):
            for weight in negative.parameters():
                weight.add_(torch.randn_like(weight) * 1e-3 * (index + 1))
    one = NegativeModels(net, **options, negatives_per_step=1)
    one.load_state_dict(every.state_dict())
    plain_copies = [copy.deepcopy(negative.module) for negative in every.models]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)

    def finish(total: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    def no_spn() -> None:
        finish(F.l1_loss(net(lq), gt))

    def textbook_term(out: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            outputs = [negative(lq) for negative in plain_copies]
        return -loss.loss_weight * sum(textbook_loss(out, other) for other in outputs) / len(outputs)

    def textbook() -> None:
        out = net(lq)
        finish(F.l1_loss(out, gt) + textbook_term(out))

    def ours(negatives: NegativeModels) -> None:
        out = net(lq)
        finish(F.l1_loss(out, gt) + loss(out, negatives(lq)))

    steps = {"no_spn": no_spn, "textbook": textbook, "ours": lambda: ours(every), "ours_one": lambda: ours(one)}
    seconds = _interleaved(steps, args.repeats, time.process_time if args.clock == "cpu" else time.perf_counter)
    # of the SPN term alone: next to the reconstruction's gradient it is small
    gradients = []
    for term in (textbook_term, lambda out: loss(out, every(lq))):
        finish(term(net(lq)))
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    memory = {kind: _peak_memory(step, device, [net, loss, every]) for kind, step in steps.items()}
    medians = {kind: statistics.median(times) for kind, times in seconds.items()}
    ratios = {kind: medians[kind] / medians["textbook"] for kind in ("ours", "ours_one")}
    time_target, memory_target, one_target = TARGETS[name]
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "clock": args.clock,
        "batch": args.batch,
        "size": args.size,
        "seconds_median": medians,
        "seconds_spread": {kind: [min(times), max(times)] for kind, times in seconds.items()},
        "memory_bytes": memory,
        "time_ratio": ratios["ours"],
        "time_ratio_per_round": sorted(a / b for a, b in zip(seconds["ours"], seconds["textbook"])),
        "time_ratio_one_negative": ratios["ours_one"],
        "memory_ratio": memory["ours"] / memory["textbook"],
        "memory_ratio_of_what_spn_adds": (memory["ours"] - memory["no_spn"]) / (memory["textbook"] - memory["no_spn"]),
        "spn_gradient_difference": float(difference),
        "targets": {"time": time_target, "memory": memory_target, "one_negative": one_target},
        "met": {
            "time": ratios["ours"] <= time_target,
            "memory": memory["ours"] / memory["textbook"] <= memory_target,
            "one_negative": ratios["ours_one"] <= one_target,
        },
    }


def _interleaved(
    steps: dict[str, Callable[[], None]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(repeats):
        for kind, step in steps.items():
            settle()
            start = clock()
            step()
            settle()
            seconds[kind].append(clock() - start)
    return seconds


def _peak_memory(step: Callable[[], None], device: torch.device, held: list[nn.Module]) -> int:
    """Return the largest number of bytes in tensors during a step, weights and gradients included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    weights = sum(t.numel() * t.element_size() for module in held for t in module.state_dict().values() if _is(t))
    return weights + peak_tensor_bytes(step)


def _is(value: object) -> bool:
    return isinstance(value, torch.Tensor)
