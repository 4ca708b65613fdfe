"""The studies' figures, drawn with matplotlib (``pip install "basicsr-plugins[plots]"``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_plugins.core.errors import DependencyError

__all__ = ["draw_complexity", "draw_rain", "draw_toy", "need_matplotlib", "new_figure", "save_figure"]


def need_matplotlib() -> None:
    """Raise DependencyError if there is no matplotlib; asked before a study of minutes or days, not after it."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise DependencyError('the figure needs matplotlib: pip install "basicsr-plugins[plots]".') from error


def new_figure(rows: int, columns: int, width: float = 3.4, height: float = 2.9) -> tuple[Any, Any]:
    """Return a figure and its axes (rows, columns), without touching pyplot's global state or needing a display.

    Raises:
        DependencyError: matplotlib is missing.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Any, path: str | Path) -> Path:
    """Write a figure and return its path; the folder is made where it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def draw_complexity(sets: Sequence[Any], path: str | Path) -> Path:
    """Draw one panel a measure: the spread of every set, backgrounds and rain side by side.

    Args:
        sets: ``SetComplexity`` objects.
        path: Where to write.
    """
    measures = list(dict.fromkeys(name for each in sets for name in each.values))
    figure, axes = new_figure(1, len(measures), width=1.6 + 0.45 * len(sets), height=3.4)
    units = {"compressed": "PNG bytes per pixel", "gradient": "mean |Sobel|", "entropy": "bits"}
    for axis, name in zip(axes[0], measures):
        shown = [each for each in sets if name in each.values]
        boxes = axis.boxplot([each.values[name] for each in shown], showfliers=False, patch_artist=True, widths=0.6)
        for box, each in zip(boxes["boxes"], shown):
            box.set_facecolor("tab:blue" if each.kind == "rain" else "tab:green")
            box.set_alpha(0.5)
        axis.set_xticks(range(1, len(shown) + 1))
        axis.set_xticklabels([each.name for each in shown], rotation=60, ha="right", fontsize=8)
        axis.set_title(name)
        axis.set_ylabel(units.get(name, "score"))
    return save_figure(figure, path)


def draw_toy(rows: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Draw removal against the number of functions, one curve a complexity; with one number only, against complexity.

    One line of panels for every degradation that was trained on, one panel for every one that was tested.

    Args:
        rows: Rows of ``run_grid``; the bars are the range over the seeds.
        path: Where to write.
    """
    trained = list(dict.fromkeys(row["train_on"] for row in rows))
    width = max(len({row["test_on"] for row in rows if row["train_on"] == kind}) for kind in trained)
    figure, axes = new_figure(len(trained), width, width=3.0)
    titles = {"functions": "number of functions N", "terms": "number of sines K"}
    for line, train_on in zip(axes, trained):
        here = [row for row in rows if row["train_on"] == train_on]
        across, curves = "functions", "terms"
        if len({row["functions"] for row in here}) == 1:
            across, curves = curves, across
        for axis, kind in zip(line, dict.fromkeys(row["test_on"] for row in here)):
            for value in sorted({row[curves] for row in here}):
                curve = group(here, across, "removal", test_on=kind, **{curves: value})
                _curve(axis, curve, f"{titles[curves][-1]} = {value}")
            axis.set_xscale("log", base=2)
            axis.set_title(f"{kind} ({'seen' if kind == train_on else 'unseen'})", fontsize=10)
            axis.set_xlabel(titles[across])
            axis.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        line[0].set_ylabel(f"trained on {train_on}\nremoval (1 = all, 0 = none)")
        line[-1].legend(fontsize=8)
    return save_figure(figure, path)


def group(rows: Sequence[dict[str, Any]], axis: str, value: str, **where: Any) -> dict[float, list[float]]:
    """Return ``{x: [y of every seed]}``, sorted by x, of the rows whose columns equal ``where``."""
    chosen = [row for row in rows if all(row[key] == wanted for key, wanted in where.items())]
    return {x: [row[value] for row in chosen if row[axis] == x] for x in sorted({row[axis] for row in chosen})}


def _curve(axis: Any, curve: dict[float, list[float]], label: str, **style: Any) -> None:
    x, y = list(curve), [np.mean(values) for values in curve.values()]
    ends = [[m - min(values), max(values) - m] for m, values in zip(y, curve.values())]
    spread = np.clip(np.array(ends).T, 0, None)  # a mean of equal numbers may differ from them by rounding
    axis.errorbar(x, y, yerr=spread, label=label, marker="o", markersize=3, capsize=2, linewidth=1.2, **style)


def draw_rain(rows: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Draw N against E_R and E_B on seen and unseen rain, one curve a rain range (and category).

    Args:
        rows: Rows of a sweep; points are means over seeds and test sets, bars their range over the seeds.
        path: Where to write.
    """
    figure, axes = new_figure(2, 2, width=4.0, height=3.0)
    curves = sorted({(row["category"], row["rain"]) for row in rows}, key=str)
    several = len({category for category, _ in curves}) > 1
    titles = {"e_r": "E_R (higher: more removed)", "e_b": "E_B (lower: background kept)"}
    for line, (value, title) in zip(axes, titles.items()):
        for axis, kind in zip(line, ("seen", "unseen")):
            for number, (category, rain) in enumerate(curves):
                chosen = [row for row in rows if row.get(value) is not None and row["kind"] == kind]
                chosen = [row for row in chosen if (row["category"], row["rain"]) == (category, rain)]
                label = f"{category}, {rain}" if several else str(rain)
                colour = f"C{number}"
                _curve(axis, _by_seed(chosen, value), label, color=colour)
                if value == "e_r" and chosen:
                    oracle = _by_seed(chosen, "e_r_oracle")
                    axis.plot(list(oracle), [np.mean(v) for v in oracle.values()], ":", color=colour, linewidth=1)
            axis.set_xscale("log", base=2)
            axis.set_title(f"{title}, {kind} rain", fontsize=9)
            axis.set_xlabel("backgrounds N")
    axes[0][0].legend(title="trained on", fontsize=8)
    axes[0][0].set_ylabel("dotted: perfect network")
    return save_figure(figure, path)


def _by_seed(rows: Sequence[dict[str, Any]], value: str) -> dict[float, list[float]]:
    """Return ``{N: [mean over the test sets, for every seed]}``."""
    result: dict[float, list[float]] = {}
    for number in sorted({row["backgrounds"] for row in rows}):
        here = [row for row in rows if row["backgrounds"] == number]
        seeds = sorted({row["seed"] for row in here})
        result[number] = [float(np.mean([row[value] for row in here if row["seed"] == seed])) for seed in seeds]
    return result
