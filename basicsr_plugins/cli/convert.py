"""``basicsr-plugins convert IN OUT``: a published checkpoint into a BasicSR or safetensors file."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import yaml

from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.core.safe_yaml import parse_yaml

__all__ = ["add_parser"]

EPILOG = """
examples:
  basicsr-plugins convert dcpt_restormer_5d.pth restormer.safetensors --from dcpt --network Restormer
  basicsr-plugins convert motion_deblurring.pth restormer.pth            # network and source are recognised
  basicsr-plugins convert experiments/dcpt/models/net_g_latest.pth net_g.safetensors --set use_checkpoint=true
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        "convert",
        help="rename a published checkpoint's keys, or move weights between .pth and .safetensors",
        description="Read a checkpoint (nothing in it is run), take the network it records or recognise its variant, "
        "write it with the key names of our networks, and print the network_g to paste into an option file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="IN", help=".pth, .pt, .ckpt, .pk or .safetensors")
    parser.add_argument("output", metavar="OUT", help=".safetensors, or any other suffix for a BasicSR file (params)")
    parser.add_argument("--from", dest="source", help="official or dcpt; recognised from the keys if left out")
    parser.add_argument("--network", help="Restormer, NAFNet ...; recognised from the keys if left out")
    parser.add_argument(
        "--entry", help="entry of the container (params, params_ema, state_dict ...), the usual if left out"
    )
    parser.add_argument(
        "--set", dest="arguments", metavar="KEY=VALUE", action="append", default=[],
        help="a further argument of the network, as in YAML; may be repeated",
    )  # fmt: skip
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Convert one file.

    Raises:
        CheckpointError: The file or its weights cannot be used.
        OptionError: An argument is wrong.
    """
    from basicsr_plugins import checkpoints

    content = checkpoints.read_checkpoint(args.input)
    weights = checkpoints.find_weights(content, args.entry, args.input)
    network_opt = checkpoints.recorded_network(args.input, content)
    if network_opt is None or args.source or args.network or args.arguments:
        source, network = checkpoints.recognise(weights)
        if not (args.network or network):
            raise CheckpointError(
                f"{args.input}: the keys ({', '.join(list(weights)[:3])} ...) are of no network known here. "
                "Name it with --network."
            )
        network_opt, weights = checkpoints.convert(
            weights, args.source or source or "official", args.network or network, **_arguments(args.arguments)
        )
    checkpoints.write(args.output, weights, network_opt)
    sys.stdout.write(yaml.safe_dump({"network_g": network_opt}, sort_keys=False, default_flow_style=None))
    return 0


def _arguments(pairs: list[str]) -> dict[str, Any]:
    arguments = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise OptionError(f"--set: expected KEY=VALUE, got {pair!r}.")
        arguments[key] = parse_yaml(value, f"--set {key}")
    return arguments
