"""Figures of a bank. Each function takes reports and returns a matplotlib figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from randes_cli.errors import UsageError
from randes_cli.stats.frontier import frontier
from randes_cli.views.palette import BLUE, CYCLE, DIVERGING, GREEN, GREY, ORANGE, SKY, VERMILION
from randes_cli.views.text import decimal, times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from randes_cli.ops.describe import BankReport
    from randes_cli.ops.distribution import Distribution
    from randes_cli.stats.breakdown import GroupRow
    from randes_cli.stats.curves import Curves

FORMATS = ("svg", "png", "pdf")
#: Groups that the picture of layers has room for; those with the most energy are kept.
MOST_GROUPS = 40
#: Tasks up to which a heatmap's cells carry numbers, and a λ curve its task's name.
MOST_NUMBERS, MOST_LEGEND = 12, 14
_NAME = 28

STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "randes",
}


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise UsageError("plot needs matplotlib: pip install 'randes-cli[plot]'") from None
    return matplotlib


def _figure(width: float, height: float, columns: int = 1, **more: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False, **more)[0]


def _short(name: str, width: int = _NAME) -> str:
    """A label: its middle left out where too long, no control characters, no TeX."""
    name = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
    if len(name) > width:
        name = name[: width // 2] + "…" + name[-(width // 2 - 1) :]
    return name.replace("$", r"\$")


def render(make: Any, kind: str) -> bytes:
    """The bytes of the figure that `make` draws: svg, png or pdf, the same for the same data.

    Raises UsageError for another format, or where matplotlib is missing.
    """
    if kind not in FORMATS:
        raise UsageError(f"-o: a name ending in .{', .'.join(FORMATS)}, not .{kind}")
    metadata = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}
    with _matplotlib().rc_context(STYLE):
        out = io.BytesIO()
        make().savefig(out, format=kind, metadata=metadata[kind])
        return out.getvalue()


def cosine_figure(report: BankReport) -> Figure:
    """Pairwise cosines of the deltas as they are and during retrieval (paper Figure 3)."""
    from matplotlib.colors import LinearSegmentedColormap

    count = len(report.tasks)
    matrices = [np.array(m) for m in (report.cosine_before, report.cosine_during)]
    apart = ~np.eye(count, dtype=bool)
    limit = max(0.05, float(np.abs(matrices[0][apart]).max(initial=0.0)))
    side = min(9.0, max(3.2, 0.42 * count + 1.2))
    figure, axes = _figure(2 * side + 0.6, side + 0.4, 2)
    colours = LinearSegmentedColormap.from_list("cosine", DIVERGING)
    every = -(-count // 40)
    names = [_short(task.name, 20) for task in report.tasks][::every]
    size = 8 if count <= 24 else 6
    for axis, matrix, title in zip(axes, matrices, ("before", "during retrieval"), strict=True):
        shown = np.where(apart, matrix, np.nan)
        image = axis.imshow(shown, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
        mean = float(np.abs(matrix[apart]).mean()) if count > 1 else 0.0
        axis.set_title(f"{title}: mean magnitude {mean:.4f}")
        axis.set_xticks(range(0, count, every), names, rotation=60, ha="right", size=size)
        axis.set_yticks(range(0, count, every), names if axis is axes[0] else [], size=size)
        axis.set_xticks([], minor=True)
        axis.grid(visible=False)
        axis.set_facecolor("#dddddd")
        axis.tick_params(length=0)
        for row, column in np.argwhere(apart) if count <= MOST_NUMBERS else ():
            value = matrix[row, column]
            ink = "white" if abs(value) > 0.7 * limit else "black"
            text = decimal(value, 3)
            axis.text(column, row, text, ha="center", va="center", color=ink, size=6.5)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("cosine (the diagonal is 1)")
    bar.outline.set_visible(False)
    return figure


def layers_figure(types: Sequence[GroupRow], layers: Sequence[GroupRow]) -> Figure:
    """Predicted cosine, and cosines before and during retrieval, by type and by layer."""
    kept = [sorted(rows, key=lambda row: -row.share)[:MOST_GROUPS] for rows in (types, layers)]
    kept[0].sort(key=lambda row: row.predicted_cosine)
    order = {row.name: place for place, row in enumerate(layers)}
    kept[1].sort(key=lambda row: order[row.name])
    shown = [rows for rows in kept if rows]
    height = 1.4 + 0.24 * sum(max(2, len(rows)) for rows in shown) + 0.5 * len(shown)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, height), layout="constrained")
    ratios = [max(2, len(rows)) for rows in shown]
    grid = figure.subplots(len(shown), 2, squeeze=False, height_ratios=ratios, sharex="col")
    for (left, right), rows, by in zip(grid, shown, ("type", "layer"), strict=False):
        total = len(types) if by == "type" else len(layers)
        more = f" ({len(rows)} of {total} with the most energy)" if total > len(rows) else ""
        _bars(left, rows, f"predicted retrieval cosine by {by}{more}")
        _dumbbells(right, rows)
    grid[-1][0].set_xlabel("cosine of a retrieved delta with its original")
    grid[-1][1].set_xlabel("mean |cosine| between different tasks")
    handles = grid[0][1].get_legend_handles_labels()
    if handles[0]:
        figure.legend(*handles, loc="outside upper right", ncols=2)
    return figure


def _bars(axis: Any, rows: Sequence[GroupRow], title: str) -> None:
    places = range(len(rows))
    axis.barh(places, [row.predicted_cosine for row in rows], color=BLUE, height=0.7)
    for place, row in enumerate(rows):
        text = f" {row.predicted_cosine:.2f}  ({row.share:.1%} of energy)"
        axis.text(row.predicted_cosine, place, text, va="center", size=7, color="#555555")
    axis.set_yticks(places, [_short(row.name, 34) for row in rows], size=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 1)
    axis.grid(axis="y", visible=False)
    axis.set_title(title)


def _dumbbells(axis: Any, rows: Sequence[GroupRow]) -> None:
    known = [(p, r.before, r.during) for p, r in enumerate(rows) if r.before is not None]
    for place, before, during in known:
        axis.plot([before, during], [place, place], color=GREY, lw=1, zorder=1)
    if known:
        places, first, second = zip(*known, strict=True)
        axis.scatter(first, places, color=VERMILION, s=22, label="before", zorder=2)
        axis.scatter(second, places, color=GREEN, s=22, marker="s", label="during", zorder=3)
    else:
        text = "stored by type only"
        axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", color="#777777")
    axis.set_yticks(range(len(rows)), [])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(left=0)


def distribution_figure(found: Distribution) -> Figure:
    """Cosines of layers within and across models, one line a kind (paper Figure 2)."""
    kinds = [
        ("within a model: two layers of one type", found.within, BLUE),
        ("across models: the same layer", found.across, VERMILION),
        ("across models, during retrieval", found.during, GREEN),
    ]
    kinds = [kind for kind in kinds if kind[1]]
    figure, (axis,) = _figure(7.5, 3.8)
    limit = max((abs(v) for _, values, _ in kinds for v in values), default=0.1)
    edges = np.linspace(-limit, limit, 82)
    for label, values, colour in kinds:
        weights = np.full(len(values), 1 / len(values))
        mean = float(np.abs(values).mean())
        text = f"{label}\n{len(values):,} pairs, mean magnitude {mean:.4f}"
        outline = {"color": colour, "histtype": "step", "lw": 1.5}
        axis.hist(values, edges, weights=weights, label=text, **outline)
        axis.hist(values, edges, weights=weights, color=colour, alpha=0.15)
    axis.set_xlabel("cosine of two deltas")
    axis.set_ylabel("share of the pairs (logarithmic)")
    axis.set_yscale("log")
    source = "measured on the checkpoints" if found.measured else "from stored statistics"
    axis.set_title(f"how alike deltas are, {source}")
    if kinds:
        axis.legend(fontsize=8)
    return figure


def size_figure(report: BankReport) -> Figure:
    """Bytes of the bank against separate checkpoints, and of its neighbours against quality."""
    figure, (left, right) = _figure(10, 3.8, 2, width_ratios=[1, 1.25])
    scale, unit = _unit(report.separate_bytes)
    other = report.bank_bytes - report.sum_bytes - report.own_bytes
    inside = report.base_bytes if report.base_storage == "embed" else 0
    parts = [
        ("base", inside, GREY),
        ("superposition", report.sum_bytes, BLUE),
        ("own tensors", report.own_bytes, ORANGE),
        ("manifest, statistics", max(0, other - inside), SKY),
    ]
    start = 0.0
    for name, size, colour in parts:
        if size:
            left.barh(1, size / scale, left=start, color=colour, label=name, height=0.5)
            start += size / scale
    left.barh(0, report.separate_bytes / scale, color=VERMILION, height=0.5)
    count = len(report.tasks)
    left.set_yticks([0, 1], [f"{count} separate\ncheckpoints", "this bank"])
    left.text(start, 1, f" {report.bank_bytes / scale:.3g} {unit}", va="center", size=8)
    left.text(0, 0.35, f"{report.separate_bytes / scale:.3g} {unit}", va="center", size=8)
    left.set_ylim(-0.6, 1.9)
    left.set_xlabel(unit)
    left.grid(axis="y", visible=False)
    left.set_title(
        f"{times(report.ratio_to_separate, 2)} separate, {times(report.ratio_to_base, 2)} base"
    )
    left.legend(fontsize=8, ncols=2, loc="upper right")
    _choices(right, report, scale, unit)
    return figure


def _choices(axis: Any, report: BankReport, scale: float, unit: str) -> None:
    """The frontier: what the best choice of each size is predicted to keep, and the range."""
    line = [one for one in report.alternatives if one.best]
    sizes = [one.bank_bytes / scale for one in line]
    low, kept, high = (
        [100 * getattr(one, key) for one in line] for key in ("kept_low", "kept", "kept_high")
    )
    axis.fill_between(sizes, low, high, color=SKY, alpha=0.3, lw=0, label="measured families")
    axis.plot(sizes, kept, "o-", color=BLUE, ms=4, lw=1, label="best of its size")
    for one in (one for one in frontier(report.alternatives, 7) if one.best):
        text = f"{one.groups}×{one.bits}" + (f"/{one.share}" if one.share > 1 else "")
        place = one.bank_bytes / scale, 100 * one.kept
        axis.annotate(text, place, (0, -11), textcoords="offset points", size=7)
    for one in report.alternatives:
        if one.present:
            star = {"color": "black", "ms": 13, "label": "this bank", "zorder": 5}
            axis.plot(one.bank_bytes / scale, 100 * one.kept, "*", **star)
    axis.margins(y=0.15)
    axis.set_xscale("log")
    axis.set_xlabel(f"{unit} of the bank; groups × bits / share")
    axis.set_ylabel("% of the gain kept, predicted")
    axis.set_title("with other bits, groups and shares")
    axis.legend(fontsize=8, loc="lower right")


def _unit(size: float) -> tuple[float, str]:
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= scale:
            return scale, unit
    return 1.0, "bytes"


def lambda_figure(curves: Curves) -> Figure:
    """One line a task: the scores that `tune` measured, or the error to expect, against λ."""
    figure, (axis,) = _figure(7.5, 4.2)
    styles = ("-", "--", ":", "-.")
    for number, (name, curve) in enumerate(curves.by_task.items()):
        xs, ys = zip(*curve, strict=True)
        best = (np.argmax if curves.measured else np.argmin)(ys)
        colour, style = CYCLE[number % len(CYCLE)], styles[number // len(CYCLE) % len(styles)]
        label = _short(name, 20) if number < MOST_LEGEND else None
        axis.plot(xs, ys, style, color=colour, lw=1.3, label=label)
        axis.plot(xs[best], ys[best], "o", color=colour, ms=5)
    axis.set_xlabel("coefficient λ (the best is marked)")
    if curves.measured:
        axis.set_ylabel("score")
        axis.set_title("scores by coefficient, measured by tune")
    else:
        axis.set_ylabel("relative error of the retrieved delta")
        axis.set_title("predicted from stored statistics; randes tune measures scores")
    more = len(curves.by_task) - MOST_LEGEND
    title = f"and {more} more" if more > 0 else None
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), title=title)
    return figure
