"""``basicsr-plugins degrade``: degraded copies of a folder, and the contact sheet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.safe_yaml import parse_yaml

__all__ = ["add_parser", "run"]

_EXAMPLES = """examples:
  basicsr-plugins degrade photos rainy --with rain --severity 0.5 --seed 1
  basicsr-plugins degrade photos hard --with gaussian_blur noise jpeg
  basicsr-plugins degrade photos rainy2 --with '{type: Rain, preset: small, beta: 0.8}'
  basicsr-plugins degrade photos again --manifest rainy/manifest.json
  basicsr-plugins degrade photos/cat.png --sheet sheet.png
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to ``basicsr-plugins``."""
    parser = subparsers.add_parser(
        "degrade",
        help="write degraded copies of images, and a manifest that rebuilds them",
        description="Write degraded copies of the images of a folder, and a manifest that rebuilds them exactly.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("in_dir", type=Path, metavar="IN_DIR", help="folder of clean images, or one image")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", nargs="?", help="folder of the copies")
    parser.add_argument(
        "--with", dest="degradations", nargs="+", metavar="DEGRADATION", default=[],
        help="names, or mappings as in an option file; several are applied one after the other ('list': show all)",
    )  # fmt: skip
    parser.add_argument("--severity", type=float, help="from 0 (clean) to 1; left out, every range is drawn")
    parser.add_argument("--seed", type=int, default=0, help="of every draw (default 0)")
    parser.add_argument("--recursive", action="store_true", help="look into sub-folders too")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    parser.add_argument("--manifest", type=Path, help="make the files of this manifest again")
    parser.add_argument("--sheet", type=Path, help="draw every degradation (or those of --with) at five severities")
    parser.set_defaults(func=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        OptionError: Wrong arguments.
        DataError: Missing, broken or colliding files.
    """
    from tqdm import tqdm

    from basicsr_plugins.data.files import need_folder
    from basicsr_plugins.data.manifest import degrade_folder, rebuild_folder
    from basicsr_plugins.degradations.build import build_degradation

    if args.degradations == ["list"]:
        return _list()
    if args.severity is not None and not 0.0 <= args.severity <= 1.0:
        raise OptionError(f"--severity: must lie between 0 and 1, got {args.severity}.")
    if args.seed < 0:
        raise OptionError(f"--seed: must be 0 or more, got {args.seed}.")
    if not args.in_dir.is_file():
        need_folder(args.in_dir, "IN_DIR")
    entries = [_entry(text) for text in args.degradations]
    if args.sheet is not None:
        _sheet(args, entries)
        if args.out_dir is None:
            return 0
    if args.out_dir is None:
        raise OptionError("OUT_DIR: name the folder of the copies, or --sheet FILE for the contact sheet alone.")

    def progress(items: list[Any]) -> Any:
        return tqdm(items, unit="image", disable=None)

    if args.manifest is not None:
        count = rebuild_folder(args.in_dir, args.out_dir, args.manifest, overwrite=args.overwrite, progress=progress)
        print(f"{count} images rebuilt in {args.out_dir}")
        return 0
    if not entries:
        raise OptionError("--with: name at least one degradation ('--with list' shows them).")
    degradation = build_degradation(
        entries[0] if len(entries) == 1 else {"type": "Sequence", "steps": entries}, "--with"
    )
    manifest = degrade_folder(
        args.in_dir, args.out_dir, degradation, severity=args.severity, seed=args.seed, recursive=args.recursive,
        overwrite=args.overwrite, progress=progress,
    )  # fmt: skip
    print(f"degraded images and {manifest.name} are in {args.out_dir}")
    return 0


def _entry(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return text
    return parse_yaml(text, f"--with: {text!r} is no mapping such as '{{type: Rain, preset: small}}'; it")


def _sheet(args: argparse.Namespace, entries: list[Any]) -> None:
    import cv2

    from basicsr_plugins.data.files import image_files
    from basicsr_plugins.data.images import read_image, to_float
    from basicsr_plugins.degradations.build import build_degradation
    from basicsr_plugins.degradations.sheet import draw_sheet

    photograph = args.in_dir if args.in_dir.is_file() else image_files(args.in_dir, "IN_DIR", args.recursive)[0]
    built = [build_degradation(entry, "--with") for entry in entries]
    chosen = {f"{number}. {item.short}" if len(built) > 1 else item.short: item for number, item in enumerate(built, 1)}
    sheet = draw_sheet(to_float(read_image(photograph)), chosen or None, seed=args.seed)
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = cv2.imwrite(str(args.sheet), sheet)
    except cv2.error:
        written = False
    if not written:
        raise OptionError(f"--sheet: {args.sheet} cannot be written; end its name in .png or .jpg.")
    print(f"contact sheet of {photograph}: {args.sheet}")


def _list() -> int:
    from basicsr_plugins.core.registration import provided

    for name, kind in sorted(provided("degradation").items()):
        print(f"{kind.short:18} {name:18} {(kind.__doc__ or '').strip().splitlines()[0]}")
    return 0
