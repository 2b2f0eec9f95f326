"""The pictures of the report, as SVG files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "randes",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "figure.constrained_layout.use": True,
    }
)

import matplotlib.pyplot as plt  # noqa: E402

Points = Sequence[tuple[float, float]]


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def lines(path: Path, series: Mapping[str, Points], x: str, y: str, *, log: bool = False) -> None:
    """Curves with a mark at every point."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for label, points in series.items():
        xs, ys = zip(*sorted(points), strict=True)
        axes.plot(xs, ys, marker="o", markersize=3, linewidth=1.4, label=label)
    if log:
        axes.set_xscale("log", base=2)
    axes.set(xlabel=x, ylabel=y)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def cloud(
    path: Path, families: Mapping[str, Mapping[str, tuple[float, float]]], x: str, y: str
) -> None:
    """Named points, one colour and mark a family: all of them, and the upper end with names."""
    figure, (whole, upper) = plt.subplots(
        1, 2, figsize=(10.5, 4.6), gridspec_kw={"width_ratios": (1, 2.2)}
    )
    best = max(place[1] for points in families.values() for place in points.values())
    floor, named = 0.86 * best, []
    for mark, (family, points) in zip("sD^ov", families.items(), strict=False):
        xs, ys = zip(*points.values(), strict=True)
        for axes in (whole, upper):
            axes.scatter(xs, ys, marker=mark, s=26, label=family)
        named += [(name, place) for name, place in points.items() if place[1] >= floor]
    upper.set_ylim(floor, best + 0.012)
    _names(upper, named, tall=best - floor)
    for axes in (whole, upper):
        axes.set(xlabel=x, ylabel=y)
    whole.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _names(axes: Any, points: Iterable[tuple[str, tuple[float, float]]], *, tall: float) -> None:
    """Write names beside points, the best first, leaving out those that would overlap."""
    written: list[tuple[float, float]] = []
    low, high = axes.get_xlim()
    for name, (across, up) in sorted(points, key=lambda point: -point[1][1]):
        if all(
            abs(across - x) > 0.17 * (high - low) or abs(up - y) > 0.028 * tall for x, y in written
        ):
            axes.annotate(
                name, (across, up), xytext=(4, -2), textcoords="offset points", fontsize=7
            )
            written.append((across, up))


def scatter(path: Path, series: Mapping[str, Points], x: str, y: str) -> None:
    """Unnamed points by series."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for label, points in series.items():
        xs, ys = zip(*points, strict=True)
        axes.scatter(xs, ys, s=14, alpha=0.7, label=label)
    axes.set(xlabel=x, ylabel=y)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def histograms(path: Path, panels: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Distributions of cosines, one panel a bed."""
    figure, grid = plt.subplots(1, len(panels), figsize=(3.3 * len(panels), 2.8), squeeze=False)
    for axes, (title, series) in zip(grid[0], panels.items(), strict=True):
        for label, values in series.items():
            axes.hist(values, bins=40, density=True, alpha=0.6, label=label)
        axes.set(title=title, xlabel="cosine")
        axes.legend(fontsize=7, frameon=False)
    _save(figure, path)


def bars(path: Path, values: Mapping[str, float], y: str) -> None:
    """Named bars, from the smallest value up."""
    figure, axes = plt.subplots(figsize=(6.4, 0.28 * len(values) + 0.9))
    axes.barh(list(values), list(values.values()), height=0.7)
    axes.set_xlim(min(values.values()) * 0.9, max(1.0, *values.values()) * 1.01)
    axes.set(xlabel=y)
    axes.invert_yaxis()
    _save(figure, path)
