"""``basicsr-plugins data dedup FOLDER ...``: the same picture twice, and test pictures among those of training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from basicsr_plugins.cli.shared_arguments import add_workers, image_bar
from basicsr_plugins.core.errors import OptionError

__all__ = ["add_command", "run_dedup"]

_EXAMPLES = """examples:
  basicsr-plugins data dedup photos more_photos --report duplicates.csv
  basicsr-plugins data dedup photos --list keep.txt            # then meta_info_file: keep.txt
  basicsr-plugins data dedup photos --move duplicates
  basicsr-plugins data dedup train --against test Set5 --turned

Two files are the same if their bytes are, or if their perceptual hashes (64 bits) differ in at most --distance bits.
That finds a copy that was saved again or shrunk, and one that lost one or two per cent at its edges; of copies that
lost five per cent it misses some. Look at the groups before you believe them. Nothing is deleted. Of a group the file
with most pixels, then most bytes, stays. With --against only what FOLDER shares with the other folders is shown, and
those stay as they are.
Exit code: 0 done, 1 test pictures were found (--against) or files could not be read, 130 interrupted.
"""


def add_command(commands: Any) -> None:
    """Add the command to ``basicsr-plugins data``."""
    parser = commands.add_parser(
        "dedup", help="find duplicates, and test images in a training set", epilog=_EXAMPLES,
        description="Find images that show the same picture, exactly or nearly.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="folders of images: one pool")
    parser.add_argument(
        "--against", type=Path, nargs="+", default=[], metavar="FOLDER",
        help="test images: find what the pool shares with them, and end with code 1 if it shares anything",
    )  # fmt: skip
    parser.add_argument(
        "--distance", type=int, default=4,
        help="bits of 64 in which two hashes may differ, 0 to 32 (default 4); above 7 it takes much longer",
    )  # fmt: skip
    parser.add_argument("--exact", action="store_true", help="compare bytes alone: fast, and without ImageHash")
    parser.add_argument("--turned", action="store_true", help="find turned and mirrored copies too")
    parser.add_argument("--recursive", "-r", action="store_true", help="look into sub-folders too")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="print the first N groups (default 10)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write every group to a .json or .csv file")
    parser.add_argument("--list", type=Path, metavar="OUT.txt", help="write the files to keep, for meta_info_file")
    parser.add_argument("--move", type=Path, metavar="TO", help="move the duplicates to this folder, with a manifest")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of --report and --list")
    add_workers(parser)
    parser.set_defaults(func=run_dedup)


def run_dedup(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        OptionError: Wrong arguments.
        DataError: No images, or files in the way.
        DependencyError: ImageHash is not installed.
        CheckpointError: An output cannot be written.
    """
    from basicsr_plugins.data.duplicate_reports import check_outputs, move_duplicates, write_list, write_report
    from basicsr_plugins.data.duplicates import find_duplicates

    if args.list is not None and args.move is not None:
        raise OptionError("--list and --move: give one of them; a list of what stays needs nothing moved.")
    folders, against = ([path.expanduser() for path in paths] for paths in (args.folders, args.against))
    args.report, args.list, args.move = (
        None if path is None else path.expanduser() for path in (args.report, args.list, args.move)
    )
    check_outputs(args.report, args.list, args.overwrite)

    search = find_duplicates(
        folders, against, distance=args.distance, exact=args.exact, turned=args.turned, recursive=args.recursive,
        leave_out=args.move, workers=args.workers, progress=image_bar,
    )  # fmt: skip
    _show(search, bool(against), args.show)
    if args.report is not None:
        write_report(args.report, search, {
            "folders": [str(path) for path in folders], "against": [str(path) for path in against],
            "distance": None if args.exact else args.distance, "turned": args.turned,
        })  # fmt: skip
        print(f"every group: {args.report}")
    if args.list is not None:
        write_list(args.list, search.kept, folders)
        print(f"{len(search.kept)} files to keep: {args.list}")
    if args.move is not None:
        moved = move_duplicates(args.move, search, folders, image_bar)
        print(f"{moved} files moved to {args.move}")
    return int(bool(search.failed) or (bool(against) and bool(search.groups)))


def _show(search: Any, is_against: bool, count: int) -> None:
    for group in search.groups[:count]:
        size = f"{group.keep.size[1]} x {group.keep.size[0]}"
        print(f"{group.keep.path} ({size}){' is a test image of which the pool has:' if is_against else ' stays:'}")
        for item in group.duplicates:
            how = "the same bytes" if item.exact else f"distance {item.distance}"
            print(f"    {item.file.path} ({item.file.size[1]} x {item.file.size[0]}), {how}")
    if len(search.groups) > count:
        print(f"... and {len(search.groups) - count} more groups (--show N, --report FILE)")
    if search.flat:
        print(f"of one colour, compared byte for byte only: {search.flat} images")
    for reason in search.failed[:10]:
        print(f"unreadable  {reason}")
    gone = sum(len(group.duplicates) for group in search.groups)
    what = "of them are in the test set" if is_against else f"of them duplicates, in {len(search.groups)} groups"
    print(f"{len(search.files)} images, {gone} {what}; {len(search.failed)} could not be read")
