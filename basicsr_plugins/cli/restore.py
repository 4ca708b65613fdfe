"""``basicsr-plugins restore INPUT ... [OUTPUT] --model MODEL``: photographs in, photographs out."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Optional

from basicsr_plugins.cli.shared_arguments import adapter_choice, add_adapter_choice
from basicsr_plugins.core.errors import OptionError

__all__ = ["add_parser", "run"]

_EXAMPLES = """examples:
  basicsr-plugins restore photo.jpg --model net_g_latest.pth             # writes photo_restored.jpg
  basicsr-plugins restore photos restored --model experiments/dcpt --recursive
  basicsr-plugins restore *.png -o restored --model restormer_deraining.pth --compare
  basicsr-plugins restore photo.jpg --model nafnet_gopro_w32             # by name: basicsr-plugins models
  basicsr-plugins restore photos out --model adapters --estimator net_e_latest.pth --map
  basicsr-plugins restore photos out --model adapters --weights rain=0.7,haze=0.3
  basicsr-plugins restore photo.jpg --model adapters --estimator net_e_latest.pth --suggest

MODEL is a file of weights (of this package, or a published one, which is recognised), the folder of a training run, an
adapter folder, a folder of adapter folders, a folder of save_pretrained, a name that `basicsr-plugins models` lists,
or hf://user/repository. With two or more paths the last one is OUTPUT, unless -o names it. What
came in goes out: format, 8 or 16 bits, grey, alpha, colour profile, EXIF. Pictures are turned upright.
Exit code: 0 all restored, 1 some were not, 130 interrupted.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to ``basicsr-plugins``."""
    text = "restore photographs: files and folders, of any size"
    parser = subparsers.add_parser(
        "restore", help=text, description="Restore photographs: files and folders, of any size.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="INPUT ... [OUTPUT]",
        help="files and folders; the last of several is the output: a folder, or a file for one file",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, help="the output; every path above is then an input")
    parser.add_argument("--model", type=Path, help="file, run folder, adapter folder, folder of adapters, or a name")
    parser.add_argument("--recursive", "-r", action="store_true", help="look into sub-folders too")
    parser.add_argument("--overwrite", action="store_true", help="replace files that stand in the way")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG and WebP, 1 to 100 (default 95)")
    parser.add_argument("--compare", action="store_true", help="also write before | after into OUTPUT/compare")
    parser.add_argument("--device", default="auto", help="auto (the GPU where there is one), cpu, cuda, cuda:1 ...")
    parser.add_argument(
        "--tile", type=int, help="side of the tiles in pixels; 0: whole pictures (default: what fits into memory)"
    )
    parser.add_argument("--tile-overlap", type=int, default=32, help="overlap of neighbouring tiles (default 32)")
    parser.add_argument("--precision", default="fp32", help="fp32 (default), bf16 or fp16")
    parser.add_argument("--self-ensemble", action="store_true", help="average over 8 flips and turns: 8 times slower")
    blend = parser.add_argument_group("several adapters (ABAIR)")
    add_adapter_choice(blend)
    blend.add_argument("--estimator", type=Path, help="weights of the estimator (net_e_*.pth)")
    blend.add_argument("--map", action="store_true", help="also write the weights per region into OUTPUT/maps")
    blend.add_argument("--suggest", action="store_true", help="only say what the estimator sees; write nothing")
    parser.set_defaults(func=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        OptionError: Wrong arguments, or no such model.
        DataError: No pictures, or files in the way.
        CheckpointError: The model cannot be used, or the output not be written.
    """
    from tqdm import tqdm

    from basicsr_plugins.data.files import first_few
    from basicsr_plugins.restore.batch import Settings, megapixels, restore_files, unfinished
    from basicsr_plugins.restore.plan import plan
    from basicsr_plugins.restore.record import Record
    from basicsr_plugins.restore.restorer import load_restorer

    if not 1 <= args.quality <= 100:
        raise OptionError(f"--quality: must lie between 1 and 100, got {args.quality}.")
    weights = adapter_choice(args)
    inputs, output = _split(args)
    jobs, passed, _ = plan(inputs, output, args.recursive)
    restorer = load_restorer(
        args.model, device=args.device, tile=args.tile, tile_overlap=args.tile_overlap, precision=args.precision,
        self_ensemble=args.self_ensemble, weights=weights, base=args.base, estimator=args.estimator,
    )  # fmt: skip
    print(f"{restorer.model.label}, on {restorer.engine.device}")
    if (args.suggest or args.map) and restorer.weigher is None:
        raise OptionError("--suggest, --map: they need several adapters and an estimator (--estimator).")
    if passed:
        print(f"passed over: {len(passed)} file(s) that are no pictures: {first_few(passed)}")
    if args.suggest:
        return _suggest(jobs, restorer)
    settings = Settings(args.quality, args.compare, args.map)
    record = Record(_how(args, restorer))
    left = unfinished(jobs, record, settings, args.overwrite)
    if len(left) < len(jobs):
        print(f"finished before: {len(jobs) - len(left)} picture(s)")
    start, total = time.monotonic(), sum(map(megapixels, left))
    shown = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} MP [{elapsed}<{remaining}, {rate_noinv_fmt}]"
    with tqdm(total=total, unit="MP", disable=None, smoothing=0.1, bar_format=shown) as bar:
        outcome = restore_files(left, restorer, record, settings, tqdm.write, bar.update)
    seconds = time.monotonic() - start
    print(
        f"{len(outcome.restored)} restored, {len(jobs) - len(left)} finished before, {len(outcome.failed)} failed; "
        f"{total:.1f} megapixels in {seconds:.1f} s ({total / max(seconds, 1e-9):.2f} MP/s)"
    )
    return 1 if outcome.failed else 0


def _split(args: argparse.Namespace) -> tuple[list[Path], Optional[Path]]:
    paths = [path.expanduser() for path in args.paths]
    if args.output is not None or len(paths) == 1:
        return paths, None if args.output is None else args.output.expanduser()
    return paths[:-1], paths[-1]


def _how(args: argparse.Namespace, restorer: Any) -> dict[str, Any]:
    """Return everything that changes the written pixels."""
    return {
        "model": restorer.model.identity,
        "weights": None if restorer.fixed is None else restorer.fixed.tolist(),
        "precision": args.precision,
        "self_ensemble": args.self_ensemble,
        "tile": args.tile,
        "tile_overlap": args.tile_overlap,
        "quality": args.quality,
        "compare": args.compare,
        "map": args.map,
    }


def _suggest(jobs: Any, restorer: Any) -> int:
    from basicsr_plugins.core.errors import DataError
    from basicsr_plugins.restore.batch import describe
    from basicsr_plugins.restore.picture import read_picture
    from basicsr_plugins.restore.weighing import is_unsure

    failed = 0
    for job in jobs:
        try:
            seen = restorer.look(read_picture(job.source).pixels)
        except DataError as error:
            print(f"skipped  {error}")
            failed += 1
            continue
        print(f"{job.source}: {describe(seen)}")
        if is_unsure(seen):
            print(
                "    look at it yourself, and choose: "
                + ", ".join(f"--only {name}" for name in restorer.model.adapters)
            )
        else:
            weights = ",".join(f"{name}={share:.2f}" for name, share in seen.items() if name != "clean")
            print(f"    --weights {weights}")
    return 1 if failed else 0
