"""Timing side by side, peak memory in a process of its own, and a table."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import torch

__all__ = ["interleaved", "peak_megabytes", "peak_tensor_bytes", "settle", "table"]

_STATUS = Path("/proc/self/status")


def interleaved(steps: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Run the steps in turn ``repeats`` times (after one round to warm up) and return the times of each in seconds.

    ``cpu`` is processor time, which other processes on the machine disturb less than the ``wall`` clock.
    """
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(repeats + 1):
        for name, step in steps.items():
            settle()
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            step()
            settle()
            if round_number:
                wall[name].append(time.perf_counter() - wall_start)
                cpu[name].append(time.process_time() - cpu_start)
    return {
        name: {
            "wall_min": min(wall[name]),
            "wall_median": statistics.median(wall[name]),
            "wall_max": max(wall[name]),
            "cpu_min": min(cpu[name]),
            "cpu_median": statistics.median(cpu[name]),
        }
        for name in steps
    }


def peak_megabytes(prepare: Callable[[], Callable[[], Any]]) -> float:
    """Return how far a step raises the peak memory, MB: allocated on a GPU, resident on a CPU.

    Only honest in a fresh process: what an allocator keeps from earlier work would serve the step unseen.
    """
    step = prepare()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        settle()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not _STATUS.exists():
        # the mark of getrusage cannot be reset, and a child may begin with its parent's
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    with contextlib.suppress(OSError):
        _STATUS.with_name("clear_refs").write_text("5")  # the mark falls back to what is resident now
    before = _kilobytes("VmRSS")
    step()
    return (_kilobytes("VmHWM") - before) / 1024


def peak_tensor_bytes(step: Callable[[], Any]) -> int:
    """Return the largest number of bytes that a step holds in tensors of its own at any time, on a CPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    current = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of equal keys as an aligned text table."""
    head = list(rows[0])
    cells = [head, *([_cell(row[key]) for key in head] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in cells) + "\n"


def settle() -> None:
    """Wait for what a GPU has been given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _kilobytes(field: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))
