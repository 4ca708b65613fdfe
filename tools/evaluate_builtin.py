"""Measure a model of adapters on whole photographs that it has not seen, beside classical tools.

    python tools/evaluate_builtin.py datasets/builtin/test --seeds 5 --out results

The degradations are those of options/builtin/test_abair.yml. Every image is rounded to 8 bits, as a file of it would
be. Writes results/rows.csv (one line per photograph, degradation, seed and method) and results/table.md; with the rows
there, `--table` writes the table again.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from classical_tools import TOOLS, Image
from skimage.metrics import structural_similarity
from tqdm import tqdm

import basicsr_plugins
from basicsr_plugins import load_restorer
from basicsr_plugins.core.safe_yaml import load_yaml
from basicsr_plugins.data.images import read_image
from basicsr_plugins.degradations import build_degradation

OPTIONS = Path(__file__).resolve().parents[1] / "options" / "builtin" / "test_abair.yml"
INPUT, BLIND = "input", "blind"


@dataclass(frozen=True)
class Row:
    """One restored photograph."""

    photograph: str
    degradation: str
    seed: int
    method: str
    psnr: float
    ssim: float
    seen: str = ""


def degradations() -> dict[str, Any]:
    """Return what is tested, by name, in the order of the option file."""
    return {
        section["name"]: {
            key: value for key, value in section["degradations"][0].items() if key not in ("label", "name")
        }
        for section in load_yaml(OPTIONS)["datasets"].values()
    }


def psnr(one: Image, other: Image) -> float:
    """Return the PSNR of two images of uint8, at most 100 dB."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return 100.0 if error == 0 else min(100.0, 10 * float(np.log10(255**2 / error)))


class Evaluation:
    """The rows of a model.

    Args:
        model: What ``load_restorer`` takes; None is the packaged one.
        seeds: Draws of each degradation.
        similarity: Measure SSIM, too.
    """

    def __init__(self, model: Optional[str], seeds: int, similarity: bool = True) -> None:
        self.seeds, self.similarity, self.kinds = seeds, similarity, degradations()
        self.blind = load_restorer(model, device="cpu")
        self.names = list(self.blind.model.adapters)
        self.single = {name: load_restorer(model, device="cpu", weights=name) for name in self.names}

    def rows(self, photographs: dict[str, Image]) -> Iterator[Row]:
        """Yield the rows, those of a photograph and a draw together."""
        for place, (name, kind) in enumerate(self.kinds.items()):
            degradation = build_degradation(kind)
            seeds = 1 if name == "clean" else self.seeds
            for number, (photograph, image) in enumerate(photographs.items()):
                for seed in range(seeds):
                    rng = np.random.default_rng([seed, number, place])
                    lq = degradation(image.astype(np.float32) / 255, rng).image
                    yield from self._one(photograph, name, seed, image, np.rint(lq * 255).astype(np.uint8))

    def _one(self, photograph: str, name: str, seed: int, gt: Image, lq: Image) -> Iterator[Row]:
        def row(method: str, image: Image, seen: str = "") -> Row:
            similar = structural_similarity(gt, image, channel_axis=2) if self.similarity else 0.0
            return Row(photograph, name, seed, method, round(psnr(gt, image), 4), round(float(similar), 5), seen)

        yield row(INPUT, lq)
        seen = self.blind.look(lq)
        yield row(BLIND, self.blind.restore_pixels(lq, seen), next(iter(seen)))
        if name in self.names:
            yield row(f"adapter {name}", self.single[name](lq))
        elif name != "clean" and seed == 0:
            for adapter in self.names:
                yield row(f"adapter {adapter}", self.single[adapter](lq))
        for tool in TOOLS.get(name, ()):
            if seed == 0 or not tool.once:
                for setting in tool.settings:
                    yield row(f"{tool.name} {setting}", tool.run(lq, setting))


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown: means over photographs, and their spread over the seeds."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row.degradation][row.method].append(row)
    lines = [
        "| | input | blind | its adapter alone | best classical tool | blind, SSIM | worst photograph | estimator |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, methods in groups.items():
        blind, before = methods[BLIND], {(r.photograph, r.seed): r.psnr for r in methods[INPUT]}
        worst = min(r.psnr - before[r.photograph, r.seed] for r in blind)
        adapters = {method: each for method, each in methods.items() if method.startswith("adapter ")}
        alone = max(adapters, key=lambda method: _mean(adapters[method]), default=None)
        right = [row.seen == name for row in blind]
        classical = [_best(methods, tool.name) for tool in TOOLS.get(name, ())]
        cells = [
            name.replace("_", " "),
            _spread(methods[INPUT]),
            f"**{_spread(blind)}**",
            f"{_mean(adapters[alone]):.2f}{'' if name in alone else f' ({alone[8:]})'}" if alone else "",
            "; ".join(classical),
            f"{statistics.mean(r.ssim for r in methods[INPUT]):.3f} to {statistics.mean(r.ssim for r in blind):.3f}",
            "" if name == "clean" else f"{worst:+.2f}",
            f"{sum(right)} of {len(right)}" if any(right) or name in TOOLS else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _best(methods: dict[str, list[Row]], tool: str) -> str:
    tried = {method: each for method, each in methods.items() if method.startswith(tool)}
    best = max(tried, key=lambda method: _mean(tried[method]))
    return f"{best} {_mean(tried[best]):.2f}"


def _mean(rows: list[Row]) -> float:
    return statistics.mean(row.psnr for row in rows)


def _spread(rows: list[Row]) -> str:
    """Return the mean over photographs, with the standard deviation of it over the seeds."""
    seeds = sorted({row.seed for row in rows})
    means = [_mean([row for row in rows if row.seed == seed]) for seed in seeds]
    return f"{statistics.mean(means):.2f}" + (f" ± {statistics.stdev(means):.2f}" if len(means) > 1 else "")


def main() -> int:
    """Run from the command line."""
    text, _, usage = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=text, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--model", help="a file or folder; default: the packaged model")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of degradations; default: all")
    parser.add_argument("--crop", type=int, help="the centre of each photograph only")
    parser.add_argument("--no-ssim", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("builtin_results"))
    parser.add_argument("--table", action="store_true", help="only write the table of the rows that are there")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "rows.csv"
    if not arguments.table:
        basicsr_plugins.register()
        evaluation = Evaluation(arguments.model, arguments.seeds, not arguments.no_ssim)
        if arguments.only:
            evaluation.kinds = {name: evaluation.kinds[name] for name in arguments.only}
        images = {
            path.stem: _centre(_pixels(path), arguments.crop) for path in sorted(arguments.photographs.glob("*.png"))
        }
        with open(file, "w", newline="", buffering=1) as stream:  # line by line: one can look while it runs
            writer = csv.DictWriter(stream, list(Row.__dataclass_fields__))
            writer.writeheader()
            for row in tqdm(evaluation.rows(images), unit=" results", disable=None):
                writer.writerow(asdict(row))
    with open(file, newline="") as stream:
        rows = [
            Row(
                r["photograph"],
                r["degradation"],
                int(r["seed"]),
                r["method"],
                float(r["psnr"]),
                float(r["ssim"]),
                r["seen"],
            )
            for r in csv.DictReader(stream)
        ]
    (arguments.out / "table.md").write_text(table(rows))
    print(table(rows), end="")
    return 0


def _pixels(path: Path) -> Image:
    return np.ascontiguousarray(read_image(path)[..., ::-1])


def _centre(image: Image, side: Optional[int]) -> Image:
    if side is None:
        return image
    top, left = max(0, (image.shape[0] - side) // 2), max(0, (image.shape[1] - side) // 2)
    return np.ascontiguousarray(image[top : top + side, left : left + side])


if __name__ == "__main__":
    sys.exit(main())
