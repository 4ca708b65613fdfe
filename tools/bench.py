"""Measure what this package claims to be faster or smaller: ``python tools/bench.py NAME [options]``.

Each file in ``tools/benches`` is one benchmark: ``add_arguments(parser)`` and ``run(args) -> dict``. The result goes to
the terminal as a table and to ``bench_results/NAME.json`` together with the machine that it was measured on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# the package under test is this checkout's; the baselines are the test suite's plain references
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]


def names() -> list[str]:
    """Return the benchmarks there are."""
    return sorted(path.stem for path in (ROOT / "tools" / "benches").glob("*.py") if not path.stem.startswith("_"))


def machine() -> dict[str, object]:
    """Return what a figure has to be read with."""
    import os

    import torch

    info: dict[str, object] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(value, 1) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
    return info


def processor() -> str:
    """Return the CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    subparsers = parser.add_subparsers(dest="name", required=True)
    for name in names():
        module = importlib.import_module(f"benches.{name}")
        sub = subparsers.add_parser(name, help=(module.__doc__ or "").split("\n", maxsplit=1)[0])
        sub.add_argument("--json", type=Path, help="where the figures go (default: bench_results/NAME.json)")
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    args = parser.parse_args()
    started = time.time()
    result = args.run(args)
    path = args.json or ROOT / "bench_results" / f"{args.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "command": " ".join(sys.argv[1:]),
        "seconds": round(time.time() - started),
        "machine": machine(),
        **result,
    }
    path.write_text(json.dumps(record, indent=2) + "\n")
    sys.stdout.write(f"written to {path}\n")


if __name__ == "__main__":
    main()
