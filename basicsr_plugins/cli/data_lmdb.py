"""``basicsr-plugins data lmdb INPUT OUTPUT.lmdb``: one file instead of many thousand."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from basicsr_plugins.cli.shared_arguments import add_pair_rule, add_workers, image_bar

__all__ = ["add_command", "run_lmdb"]

_EXAMPLES = """examples:
  basicsr-plugins data lmdb HR_sub HR_sub.lmdb
  basicsr-plugins data lmdb HR_sub HR_sub.lmdb --pair LR_sub LR_sub.lmdb

Read it with io_backend: {type: lmdb} in BasicSR's data sets or in those here. Images are stored as PNG: upright, 8 or
16 bits and grey stay, transparency goes. A key is the path without its ending; BasicSR reads no key with a dot or a
letter outside of ASCII, so that a dot becomes '_' and other letters %XX. manifest.json in the lmdb says which key is
which file. An lmdb that is there is not replaced, and one that was not finished leaves nothing under its name.
Exit code: 0 all packed, 1 some could not be read, 130 interrupted.
"""


def add_command(commands: Any) -> None:
    """Add the command to ``basicsr-plugins data``."""
    parser = commands.add_parser(
        "lmdb", help="pack images, or pairs, into lmdb", epilog=_EXAMPLES,
        description="Pack the images of a folder into an lmdb, which BasicSR reads faster than many files.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", type=Path, metavar="INPUT", help="folder of images (with --pair: the clean ones)")
    parser.add_argument("target", type=Path, metavar="OUTPUT.lmdb", help="must not exist")
    parser.add_argument(
        "--pair", type=Path, nargs=2, metavar=("LQ_INPUT", "LQ_OUTPUT.lmdb"),
        help="degraded images, and their lmdb, which gets the same keys",
    )  # fmt: skip
    add_pair_rule(parser)
    parser.add_argument("--compression", type=int, default=1, help="of PNG, 0 (fast) to 9 (small) (default 1)")
    parser.add_argument("--recursive", "-r", action="store_true", help="look into sub-folders too")
    add_workers(parser)
    parser.set_defaults(func=run_lmdb)


def run_lmdb(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        OptionError: Wrong arguments.
        DataError: No images, no partners, or an lmdb that is there already.
        DependencyError: lmdb is not installed.
        CheckpointError: The output cannot be written.
    """
    from tqdm import tqdm

    from basicsr_plugins.data.files import first_few
    from basicsr_plugins.data.lmdb_writer import write_lmdb

    report = write_lmdb(
        args.source.expanduser(), args.target.expanduser(),
        pair=None if args.pair is None else (args.pair[0].expanduser(), args.pair[1].expanduser()),
        rule=args.pair_rule, recursive=args.recursive, compression=args.compression, workers=args.workers,
        progress=image_bar, say=tqdm.write,
    )  # fmt: skip
    what = "images" if args.pair is None else "pairs"
    if report.unused:
        print(f"clean images without a degraded one, left out: {len(report.unused)}: {first_few(report.unused)}")
    if report.renamed:
        shown = first_few(f"{name} -> {key}" for name, key in report.renamed)
        print(f"keys that are not the name itself: {len(report.renamed)}: {shown}")
    if report.alpha:
        print(f"transparency dropped: {report.alpha} images")
    print(f"{report.keys} {what} packed, {len(report.failed)} failed: {args.target}", end="")
    print(f", {args.pair[1]}" if args.pair is not None else "")
    return 1 if report.failed else 0
