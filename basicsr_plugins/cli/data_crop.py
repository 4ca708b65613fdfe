"""``basicsr-plugins data crop INPUT OUTPUT``: sub-images of large images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from basicsr_plugins.cli.shared_arguments import add_pair_rule, add_workers, image_bar

__all__ = ["add_command", "run_crop"]

_EXAMPLES = """examples:
  basicsr-plugins data crop DIV2K_train_HR DIV2K_train_HR_sub
  basicsr-plugins data crop HR HR_sub --pair LR_x4 LR_x4_sub --scale 4 --pair-rule 'replace:x4->'

Sub-images are called NAME_s001.png, NAME_s002.png ... row by row, as BasicSR's extract_subimages.py calls them, and are
always PNG. A pair has the same names in both outputs. Each output has a manifest.json: source, window (top, left,
height, width) and SHA-256 of every file. Pictures are turned upright, 8 or 16 bits and grey stay, transparency goes.
The same command again goes on where it was stopped.
Exit code: 0 all cut, 1 some could not be read or cut, 130 interrupted.
"""


def add_command(commands: Any) -> None:
    """Add the command to ``basicsr-plugins data``."""
    parser = commands.add_parser(
        "crop", help="cut large images, or pairs, into sub-images", epilog=_EXAMPLES,
        description="Cut the images of a folder into sub-images, which load faster.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", type=Path, metavar="INPUT", help="folder of images (with --pair: the clean ones)")
    parser.add_argument("target", type=Path, metavar="OUTPUT", help="folder of their sub-images")
    parser.add_argument("--size", type=int, default=480, help="side of a sub-image in pixels (default 480)")
    parser.add_argument("--step", type=int, default=240, help="from one sub-image to the next (default 240)")
    parser.add_argument(
        "--threshold", type=int, default=0,
        help="a rest at the edge larger than this gets a sub-image of its own, flush with the edge (default 0)",
    )  # fmt: skip
    parser.add_argument(
        "--pair", type=Path, nargs=2, metavar=("LQ_INPUT", "LQ_OUTPUT"),
        help="degraded images, cut at the same places, and the folder of their sub-images",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=int, default=1,
        help="with --pair: how many times larger the clean images are; --size and --step are theirs (default 1)",
    )  # fmt: skip
    add_pair_rule(parser)
    parser.add_argument(
        "--small", choices=("keep", "skip", "refuse"), default="keep",
        help="images smaller than --size: keep them whole (default), skip them, or refuse before writing anything",
    )  # fmt: skip
    parser.add_argument("--compression", type=int, default=3, help="of PNG, 0 (fast) to 9 (small) (default 3)")
    parser.add_argument("--recursive", "-r", action="store_true", help="look into sub-folders too, which are kept")
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace files that stand in the way, and remove sub-images of earlier runs that no longer belong",
    )  # fmt: skip
    add_workers(parser)
    parser.set_defaults(func=run_crop)


def run_crop(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        OptionError: Wrong arguments.
        DataError: No images, no partners, or files in the way.
        CheckpointError: The output cannot be written.
    """
    from tqdm import tqdm

    from basicsr_plugins.data.crops import crop_folder
    from basicsr_plugins.data.files import first_few
    from basicsr_plugins.data.windows import Cutting

    cutting = Cutting(args.size, args.step, args.threshold, args.scale, args.small, args.compression)
    report = crop_folder(
        args.source.expanduser(), args.target.expanduser(), cutting,
        pair=None if args.pair is None else (args.pair[0].expanduser(), args.pair[1].expanduser()),
        rule=args.pair_rule, recursive=args.recursive, overwrite=args.overwrite, workers=args.workers,
        progress=image_bar, say=tqdm.write,
    )  # fmt: skip
    what = "images" if args.pair is None else "pairs"
    if report.unused:
        print(f"clean images without a degraded one, left out: {len(report.unused)}: {first_few(report.unused)}")
    if report.small:
        done = "kept whole" if args.small == "keep" else "left out"
        print(f"smaller than {args.size} pixels, {done}: {report.small} {what}")
    if report.alpha:
        print(f"transparency dropped: {report.alpha} images")
    if report.stale:
        done = "removed" if args.overwrite else "still there, and data sets read them (--overwrite removes them)"
        print(f"sub-images of an earlier run, {done}: {len(report.stale)}: {first_few(report.stale)}")
    if report.failed:
        print(f"{len(report.failed)} {what} could not be cut:")
        for reason in report.failed[:10]:
            print(f"  {reason}")
        if len(report.failed) > 10:
            print(f"  ... and {len(report.failed) - 10} more")
    print(f"{report.written} sub-images written, {report.finished} {what} finished before, {len(report.failed)} failed")
    return 1 if report.failed else 0
