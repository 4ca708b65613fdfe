"""`basicsr-plugins complexity DIR ...`: how complex are backgrounds and rain layers?"""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    text = "measure the complexity of image folders and of rain layers: compressed size, gradient, entropy"
    parser = commands.add_parser("complexity", help=text, description=text)
    parser.add_argument("dirs", nargs="+", metavar="DIR", help="folder of images: backgrounds, or saved rain layers")
    parser.add_argument(
        "--rain", nargs="*", default=["small", "medium", "large"], metavar="PRESET",
        help="rain presets to measure beside them (small medium large random; default the first three; none: --rain)",
    )  # fmt: skip
    parser.add_argument("--tile", type=int, default=128, help="side of the tiles; 0 takes whole images (default 128)")
    parser.add_argument("--layers", type=int, default=64, help="rain layers of each preset (default 64)")
    parser.add_argument("--network", metavar="MODULE:FUNCTION", help="your own measure: RGB float image to a number")
    parser.add_argument("--recursive", action="store_true", help="look into sub-folders too")
    parser.add_argument("--seed", type=int, default=0, help="seed of the rain layers (default 0)")
    parser.add_argument("--csv", help="also write the table here")
    parser.add_argument("--plot", help="also draw the distributions here (PNG, needs matplotlib)")
    parser.set_defaults(func=_run)


def _run(arguments: argparse.Namespace) -> None:
    from functools import partial

    from tqdm import tqdm

    from basicsr_plugins.core.errors import OptionError
    from basicsr_plugins.studies.complexity import load_scorer, measure_layers, measure_set
    from basicsr_plugins.studies.tables import as_text, write_csv

    if arguments.plot:
        from basicsr_plugins.studies.figures import draw_complexity, need_matplotlib

        need_matplotlib()
    for name, least in (("tile", 0), ("layers", 1), ("seed", 0)):
        if getattr(arguments, name) < least:
            raise OptionError(f"--{name}: must be at least {least}, got {getattr(arguments, name)}.")
    scorer = load_scorer(arguments.network) if arguments.network else None
    canvas = arguments.tile or 256
    sets = [measure_layers(preset, canvas, arguments.layers, arguments.seed, scorer) for preset in arguments.rain]
    for folder in arguments.dirs:
        bar = partial(tqdm, desc=str(folder), unit="image", leave=False)
        sets.append(measure_set(folder, arguments.tile or None, scorer, arguments.recursive, bar))
    rows = [each.row() for each in sets]
    print(as_text(rows))
    if arguments.csv:
        print(f"table: {write_csv(rows, arguments.csv)}")
    if arguments.plot:
        print(f"figure: {draw_complexity(sets, arguments.plot)}")
