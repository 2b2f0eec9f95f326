"""The charts of a bank, each drawn on a matplotlib axis, for files and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.prediction.verdict import percent
from randes_cli.stats.frontier import frontier
from randes_cli.views.text import decimal, human, label

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#8a8a8a"
#: Lines and bars, in the order of their use.
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY)
#: Letters, softer letters and lines, grids. In the page each gives way to the page's own.
INK, SOFT, LINE = "#1d2125", "#5d666f", "#dde1e5"
#: Letters on a strong colour.
WHITE = "#ffffff"

if TYPE_CHECKING:
    from randes_cli.ops.describe import BankReport
    from randes_cli.ops.distribution import Distribution
    from randes_cli.reports import Alternative
    from randes_cli.stats.breakdown import GroupRow
    from randes_cli.stats.curves import Curve, Curves

#: Tasks up to which a heatmap's cells carry numbers, and a λ curve its task's name.
MOST_NUMBERS, MOST_LEGEND = 12, 14
#: Names at the edges of a heatmap, and letters of one: a longer one makes all print small.
MOST_LABELS, HEAT_LETTERS = 40, 24
_MARKS = "osv^DPX*<>ph"


def heat_image(matrix: F64, limit: float) -> F64:
    """[rows, columns, 4] colours: clear for 0, Okabe and Ito's blue and vermilion at the ends.

    Small cosines get more than their share of the colour; the diagonal stays clear.
    """
    ends = np.array([[*bytes.fromhex(one[1:])] for one in (BLUE, VERMILION)]) / 255
    made = np.empty((*matrix.shape, 4))
    made[..., :3] = ends[(matrix > 0).astype(int)]
    made[..., 3] = np.minimum(1.0, np.abs(matrix) / limit) ** 0.7
    np.fill_diagonal(made[..., 3], 0.0)
    return made


def heat(axis: Any, names: Sequence[str], matrix: F64, limit: float, *, left: bool = True) -> None:
    """Cosines of every pair of tasks; `left` names the rows, too."""
    count = len(names)
    axis.imshow(heat_image(matrix, limit), interpolation="none", aspect="equal")
    every = -(-count // MOST_LABELS)
    shown = [label(name, HEAT_LETTERS) for name in names][::every]
    places = range(0, count, every)
    size, small = 8 if count <= 24 else 6, 8 if count <= 8 else 6.5
    axis.set_xticks(places, shown, rotation=90, size=size)
    axis.set_yticks(places, shown if left else [], size=size)
    axis.xaxis.tick_top()
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for row, column in np.ndindex(matrix.shape) if count <= MOST_NUMBERS else ():
        if row == column:
            axis.text(column, row, "1", ha="center", va="center", color=SOFT, size=small)
            continue
        value = matrix[row, column]
        ink = WHITE if abs(value) > 0.6 * limit else INK
        text = decimal(value, 3).replace("0.", ".", 1)
        axis.text(column, row, text, ha="center", va="center", color=ink, size=small)


def cosines(axis: Any, rows: Sequence[GroupRow]) -> None:
    """Predicted cosine of each group of tensors, with its share of the deltas' energy."""
    places = range(len(rows))
    axis.barh(places, [row.predicted_cosine for row in rows], color=BLUE, height=0.7)
    for place, row in enumerate(rows):
        text = f" {row.predicted_cosine:.2f}  ({percent(row.share)} of energy)"
        axis.text(row.predicted_cosine, place, text, va="center", size=7, color=SOFT)
    axis.set_yticks(places, [label(row.name) for row in rows], size=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 1)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("cosine with the original delta")


def overlaps(axis: Any, rows: Sequence[GroupRow], *, left: bool = True) -> None:
    """Mean magnitude of the tasks' cosines in each group of tensors, before and in retrieval.

    `left` names the rows.
    """
    known = [(p, r.before, r.during) for p, r in enumerate(rows) if r.before is not None]
    for place, before, during in known:
        axis.plot([before, during], [place, place], color=GREY, lw=1, zorder=1)
    places, first, second = zip(*known, strict=True)
    axis.scatter(first, places, color=VERMILION, s=22, label="before", zorder=2)
    axis.scatter(second, places, color=GREEN, s=22, marker="s", label="during", zorder=3)
    axis.set_yticks(range(len(rows)), [label(row.name) for row in rows] if left else [], size=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(left=0)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("mean |cosine| between tasks")


def distribution(axis: Any, found: Distribution) -> None:
    """Cosines of layers within and across models, one line a kind (paper Figure 2)."""
    kinds = [
        ("within a model: two layers of one type", found.within, BLUE),
        ("across models: the same layer", found.across, VERMILION),
        ("across models, during retrieval", found.during, GREEN),
    ]
    kinds = [kind for kind in kinds if kind[1]]
    limit = max((abs(v) for _, values, _ in kinds for v in values), default=0.1)
    edges = np.linspace(-limit, limit, 82)
    for text, values, colour in kinds:
        found_here = np.array(values)
        share = np.histogram(found_here, edges)[0] / len(found_here)
        mean = float(np.abs(found_here).mean())
        name = f"{text}\n{len(values):,} pairs, mean magnitude {mean:.4f}"
        axis.stairs(share, edges, color=colour, lw=1.5, label=name)
        axis.stairs(share, edges, color=colour, alpha=0.15, fill=True)
    axis.set_xlabel("cosine of two deltas")
    axis.set_ylabel("share of the pairs (logarithmic)")
    axis.set_yscale("log")
    axis.set_ylim(bottom=0.5 / max(len(values) for _, values, _ in kinds))
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18))


def sizes(axis: Any, report: BankReport) -> None:
    """Bytes of the bank, by part, beside those of separate checkpoints."""
    scale, unit = size_unit(max(report.separate_bytes, report.bank_bytes))
    inside = report.base_bytes if report.base_storage == "embed" else 0
    other = report.bank_bytes - inside - report.sum_bytes - report.own_bytes
    parts = [
        ("base", inside, GREY),
        ("superposition", report.sum_bytes, BLUE),
        ("own tensors", report.own_bytes, ORANGE),
        ("manifest, statistics", max(0, other), SKY),
    ]
    start = 0.0
    for name, size, colour in parts:
        if size:
            axis.barh(1, size / scale, left=start, color=colour, label=name, height=0.5)
            start += size / scale
    axis.barh(0, report.separate_bytes / scale, color=VERMILION, height=0.5)
    count = len(report.tasks)
    separate = f"{count} separate\ncheckpoint" + ("s" if count > 1 else "")
    axis.set_yticks([0, 1], [separate, "this bank"])
    for place, size in ((1, report.bank_bytes), (0, report.separate_bytes)):
        axis.text(0, place + 0.36, human(size), va="center", size=8)
    axis.set_ylim(-0.4, 1.6)
    axis.set_xlabel(unit)
    axis.grid(axis="y", visible=False)
    axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def choices(axis: Any, alternatives: Sequence[Alternative]) -> None:
    """Bytes and predicted share of the gain of other banks; the best are joined and named."""
    scale, unit = size_unit(max(one.bank_bytes for one in alternatives))
    best = [one for one in frontier(alternatives) if not one.present]
    others = [one for one in alternatives if one not in best and not one.present]

    def points(found: Sequence[Alternative]) -> tuple[list[float], list[float]]:
        return [one.bank_bytes / scale for one in found], [100 * one.kept for one in found]

    axis.plot(*points(others), ".", color=GREY, ms=4, alpha=0.6, label="other choices")
    axis.plot(*points(best), "o-", color=BLUE, ms=5, lw=1.3, label="the best for their bytes")
    for one in best:
        size, band = one.bank_bytes / scale, [100 * one.kept_low, 100 * one.kept_high]
        axis.plot([size, size], band, color=BLUE, lw=5, alpha=0.22, solid_capstyle="butt")
    for one in best[:: -(-len(best) // 6)]:
        place = (one.bank_bytes / scale, 100 * one.kept)
        axis.annotate(choice_name(one), place, (6, -9), textcoords="offset points", size=7)
    for one in alternatives:
        if one.present:
            place = (one.bank_bytes / scale, 100 * one.kept)
            axis.plot(*place, "*", color=INK, ms=13, label="this bank", zorder=5)
    near = [one for one in alternatives if one.present or one in best]
    low, high = (pick(one.bank_bytes for one in near) / scale for pick in (min, max))
    least = 100 * min(one.kept for one in near)
    axis.set_xlim(low - 0.08 * (high - low), high + 0.25 * (high - low) + 1e-9)
    axis.set_ylim(max(0, least - 0.4 * (100 - least)) - 2, 102)
    axis.set_xlabel(f"{unit} of the bank (bits × groups; bands: measured families)")
    axis.set_ylabel("% of the gain kept, predicted")
    axis.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def choice_name(one: Alternative) -> str:
    """Bits, groups and share of a choice, in short."""
    share = f" on 1/{one.share}" if one.share > 1 else ""
    return f"{one.bits} × {one.groups}{share}"


def lambdas(axis: Any, curves: Curves, used: Mapping[str, float]) -> None:
    """One line a task by λ: measured scores, or the error to expect; `used` is the bank's own λ.

    Lines that coincide show side by side: the first ones are wider, and marks are staggered.
    """
    many = len(curves.by_task)
    named = list(curves.by_task.items())[:MOST_LEGEND]
    for number, (name, curve) in enumerate(named):
        xs, ys = (np.array(column) for column in zip(*curve, strict=True))
        colour = CYCLE[number % len(CYCLE)]
        every = max(2, len(xs) // 4)
        axis.plot(
            *(xs, ys),
            color=colour,
            lw=1.2 + 1.6 * (1 - number / max(1, len(named) - 1)) * (many > 1),
            marker=_MARKS[number % len(_MARKS)],
            markevery=(number % every, every),
            ms=4.5,
            label=label(name, 24),
        )
        if name in used:
            there = float(np.interp(used[name], xs, ys))
            axis.plot(used[name], there, "o", ms=9, mfc="none", mec=colour, mew=1.6, zorder=6)
    _range(axis, list(curves.by_task.values())[MOST_LEGEND:])
    common = {used[name] for name in curves.by_task if name in used}
    if len(common) == 1:
        value = common.pop()
        axis.axvline(value, color=SOFT, lw=1, ls=":", zorder=0)
        side = "right" if value > sum(axis.get_xlim()) / 2 else "left"
        place = {"transform": axis.get_xaxis_transform(), "ha": side, "color": SOFT}
        axis.text(value, 0.02, f" the bank's λ = {value:g} ", **place)
    axis.set_xlabel("coefficient λ (rings: the bank's own)")
    axis.set_ylabel("score" if curves.measured else "relative error of the retrieved delta")
    if many > 1 or curves.measured:
        axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17))


def _range(axis: Any, curves: Sequence[Curve]) -> None:
    """From the least to the most of curves that are too many for a line each."""
    if not curves:
        return
    xs = np.unique([x for curve in curves for x, _ in curve])
    ys = np.array([np.interp(xs, [x for x, _ in curve], [y for _, y in curve]) for curve in curves])
    name = f"the range of {len(curves):,} more"
    axis.fill_between(xs, ys.min(axis=0), ys.max(axis=0), color=GREY, alpha=0.25, lw=0, label=name)


def size_unit(size: float) -> tuple[float, str]:
    """The unit in which bytes read well: how many bytes, and its name."""
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= scale:
            return scale, unit
    return 1.0, "bytes"
