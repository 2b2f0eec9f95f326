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
