"""Throughput of degradations and of the data sets, on one core.

Each degradation takes turns with albumentations' and kornia's of the same kind and parameters, in one process, on the
same 128 x 128 float32 crop. kornia runs twice: one crop a call, as a loader has them, and in batches of 16, charged
per image. Times are of the process, not of the wall: other programs may share the machine. The recipe of five
degradations reads
2040 x 1356 PNG files, once decoding for every crop and once from the RAM cache.

    python tools/bench.py data                      # what is installed of the two libraries
    python tools/bench.py data --rounds 40 --only gaussian_noise jpeg
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from basicsr_plugins.degradations import build_degradation

#: Label -> our entry. Parameters are fixed, so that the libraries do the same work.
OURS: dict[str, dict[str, Any]] = {
    "gaussian_noise": {"type": "GaussianNoise", "sigma": 25},
    "poisson_noise": {"type": "PoissonNoise", "peak": 100},
    "speckle": {"type": "SpeckleNoise", "variance": 0.04},
    "salt_pepper": {"type": "SaltPepperNoise", "density": 0.05},
    "gaussian_blur": {"type": "GaussianBlur", "sigma": 2.0},
    "motion_blur": {"type": "MotionBlur", "length": 15, "curve": 0},
    "defocus": {"type": "DefocusBlur", "radius": 4},
    "jpeg": {"type": "JPEG", "quality": 30},
    "bit_depth": {"type": "BitDepth", "bits": 4},
    "rain": {"type": "Rain", "preset": "medium"},
    "snow": {"type": "Snow"},
    "haze": {"type": "Haze"},
}
#: The same kind by another algorithm: shown, but no part of the targets.
OTHER_ALGORITHM = ("rain", "snow", "haze", "speckle")
_RECIPE = ["GaussianNoise", "MotionBlur", {"type": "Rain", "preset": "medium"}, "Haze", "LowLight"]
TARGETS = {"albumentations": 1.0, "kornia": 3.0, "kornia_16": 3.0, "cache": 5.0}
_OTHERS = ("albumentations", "kornia", "kornia_16")
_BATCH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this bench's options."""
    parser.add_argument("--rounds", type=int, default=30, help="every candidate runs once per round, in turn")
    parser.add_argument("--calls", type=int, default=20, help="calls per turn; the median turn counts")
    parser.add_argument("--size", type=int, default=128, help="side of the crop")
    parser.add_argument("--only", nargs="+", choices=sorted(OURS), default=sorted(OURS))
    parser.add_argument("--recipe-samples", type=int, default=60, help="crops per turn of the recipe; 0 leaves it out")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and return ``{"degradations": {...}, "recipe": {...}}``; prints a table."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    image = _photograph(args.size)
    results: dict[str, Any] = {}
    print(f"{'milliseconds per image':22}{'ours':>9}{'albument.':>11}{'kornia':>9}{'batch 16':>11}   times ours")
    for label in args.only:
        candidates = _candidates(label, image)
        times = _take_turns(candidates, args.rounds, args.calls)
        row: dict[str, Any] = {name: 1e3 * statistics.median(values) for name, values in times.items()}
        row["ratios"] = {name: row[name] / row["ours"] for name in _OTHERS if name in row}
        results[label] = row
        print(_line(label, row))
    report: dict[str, Any] = {"degradations": results}
    if args.recipe_samples:
        report["recipe"] = _recipe(args.recipe_samples, args.size)
    report["failed"] = _failed(report)
    print("below target:", ", ".join(report["failed"]) or "nothing")
    return report


def _photograph(size: int) -> np.ndarray:
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[30 : 30 + size, 150 : 150 + size].astype(np.float32) / 255)


def _candidates(label: str, image: np.ndarray) -> dict[str, Callable[[], Any]]:
    degradation, rng = build_degradation(OURS[label]), np.random.default_rng(0)
    candidates: dict[str, Callable[[], Any]] = {"ours": lambda: degradation(image, rng)}
    theirs = _albumentations().get(label)
    if theirs is not None:
        candidates["albumentations"] = lambda: theirs(image=image)["image"]
    other = _kornia().get(label)
    if other is not None:
        crop = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        batch = crop.repeat(_BATCH, 1, 1, 1)
        candidates["kornia"] = lambda: other(crop)
        candidates["kornia_16"] = lambda: other(batch)
    return candidates


def _albumentations() -> dict[str, Any]:
    try:
        import albumentations as A
    except ImportError:
        return {}
    return {
        "gaussian_noise": A.GaussNoise(std_range=(25 / 255, 25 / 255), p=1),
        "poisson_noise": A.ShotNoise(scale_range=(0.1, 0.1), p=1),
        "speckle": A.MultiplicativeNoise(multiplier=(0.6, 1.4), per_channel=True, elementwise=True, p=1),
        "salt_pepper": A.SaltAndPepper(amount=(0.05, 0.05), salt_vs_pepper=(0.5, 0.5), p=1),
        "gaussian_blur": A.GaussianBlur(blur_limit=(13, 13), sigma_limit=(2.0, 2.0), p=1),
        "motion_blur": A.MotionBlur(blur_limit=(15, 15), p=1),
        "defocus": A.Defocus(radius=(4, 4), alias_blur=(0.1, 0.1), p=1),
        "jpeg": A.ImageCompression(quality_range=(30, 30), p=1),
        "bit_depth": A.Posterize(num_bits=4, p=1),
        "rain": A.RandomRain(slant_range=(-30, 30), drop_length=40, drop_width=1, p=1),
        "snow": A.RandomSnow(p=1),
        "haze": A.RandomFog(p=1),
    }


def _kornia() -> dict[str, Any]:
    try:
        import kornia.augmentation as K
    except ImportError:
        return {}
    quality = torch.tensor([30.0, 30.0])
    return {
        "gaussian_noise": K.RandomGaussianNoise(std=25 / 255, p=1),
        "salt_pepper": K.RandomSaltAndPepperNoise(amount=(0.05, 0.05), salt_vs_pepper=(0.5, 0.5), p=1),
        "gaussian_blur": K.RandomGaussianBlur((13, 13), (2.0, 2.0), p=1),
        "motion_blur": K.RandomMotionBlur(15, (0.0, 180.0), 0.0, p=1),
        "jpeg": K.RandomJPEG(jpeg_quality=quality, p=1),
        "bit_depth": K.RandomPosterize((4.0, 4.0), p=1),
        "rain": K.RandomRain(number_of_drops=(80, 80), drop_height=(40, 40), drop_width=(-5, 5), p=1),
        "snow": K.RandomSnow(p=1),
    }


def _take_turns(candidates: dict[str, Callable[[], Any]], rounds: int, calls: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, call in candidates.items():
            repeat = max(1, calls // 5) if name.startswith("kornia") else calls
            started = time.process_time()  # other processes share the machine; none of these waits for anything
            for _ in range(repeat):
                call()
            spent = (time.process_time() - started) / repeat / (_BATCH if name == "kornia_16" else 1)
            if turn:  # the first round warms up
                times[name].append(spent)
    return times


def _recipe(samples: int, size: int) -> dict[str, float]:
    """Return samples per second of the five-degradation recipe, with and without the RAM cache, warm."""
    from basicsr_plugins.data.degradation_dataset import DegradationDataset

    with tempfile.TemporaryDirectory() as folder:
        _write_2k(Path(folder))
        sets = {}
        for cache in ("none", "ram"):
            sets[cache] = DegradationDataset({
                "name": cache, "type": "DegradationDataset", "phase": "train", "dataroot_gt": folder, "gt_size": size,
                "cache": cache, "seed": 0,
                "degradations": _RECIPE,
            })  # fmt: skip
            sets[cache].set_epoch(0)
        for index in range(len(sets["ram"])):
            sets["ram"][index]
        rates: dict[str, list[float]] = {"none": [], "ram": []}
        for turn in range(5):
            for cache, dataset in sets.items():
                count = samples if cache == "ram" else max(4, samples // 10)
                started = time.process_time()
                for index in range(count):
                    dataset[turn * count + index]
                rates[cache].append(count / (time.process_time() - started))
    result = {cache: statistics.median(values) for cache, values in rates.items()}
    result["ratio"] = result["ram"] / result["none"]
    print(f"recipe, crops per second: {result['none']:.1f} decoding, {result['ram']:.1f} from RAM", end=" ")
    print(f"({result['ratio']:.1f} x)")
    return result


def _write_2k(folder: Path) -> None:
    from skimage import data

    rng = np.random.default_rng(0)
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        large = cv2.resize(getattr(data, name)(), (2040, 1356), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        large += rng.normal(0, 2.0, large.shape)  # the grain of a camera: an upscaled picture packs too well
        cv2.imwrite(str(folder / f"{name}.png"), np.clip(large, 0, 255).astype(np.uint8))


def _line(label: str, row: dict[str, Any]) -> str:
    cells = [f"{row[name]:9.3f}" if name in row else f"{'-':>9}" for name in ("ours", *_OTHERS)]
    ratios = "  ".join(f"{name} {ratio:.2f} x" for name, ratio in row["ratios"].items())
    note = "  (another algorithm)" if label in OTHER_ALGORITHM else ""
    return f"{label:22}{cells[0]}{cells[1]:>11}{cells[2]}{cells[3]:>11}   {ratios}{note}"


def _failed(report: dict[str, Any]) -> list[str]:
    failed = [
        f"{label} against {name}"
        for label, row in report["degradations"].items()
        for name, ratio in row["ratios"].items()
        if label not in OTHER_ALGORITHM and ratio < TARGETS[name]
    ]
    if report.get("recipe", {}).get("ratio", np.inf) < TARGETS["cache"]:
        failed.append("RAM cache")
    return failed
