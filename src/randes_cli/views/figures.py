"""Figures of a bank as files, one function a kind; and matplotlib's own settings."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.errors import MissingError, UsageError
from randes_cli.views import panels
from randes_cli.views.panels import CYCLE, INK, LINE, SOFT
from randes_cli.views.text import label, times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from randes_cli.ops.describe import BankReport
    from randes_cli.ops.distribution import Distribution
    from randes_cli.stats.breakdown import GroupRow
    from randes_cli.stats.curves import Curves

Layout = Literal["constrained", "compressed"]

FORMATS = ("svg", "png", "pdf")
#: Letters of the smallest print that an inch holds.
_LETTERS = 15
#: Groups that the picture of layers has room for; those with the most energy are kept.
MOST_GROUPS = 40

STYLE: dict[str, Any] = {
    "axes.edgecolor": SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": "cycler('color', [" + ", ".join(repr(one) for one in CYCLE) + "])",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": LINE,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "randes",
    "text.color": INK,
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
}


def settings(**more: Any) -> Any:
    """A context in which matplotlib draws in our style.

    Raises UsageError where it is missing, or stumbles over the user's settings for it.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it speaks while it is imported
    try:
        import matplotlib
    except ImportError:
        raise UsageError("plot needs matplotlib: pip install 'randes-cli[plot]'") from None
    except (ValueError, RuntimeError, OSError) as error:
        raise UsageError(f"matplotlib cannot be loaded: {str(error)[:100]}") from error
    return matplotlib.rc_context({**STYLE, **more})


def subplots(
    width: float, height: float, columns: int = 1, layout: Layout = "constrained"
) -> tuple[Figure, Any]:
    """A figure of so many inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def told(figure: Figure, sentences: Sequence[str]) -> Figure:
    """A figure with what to expect of the tasks below it, in the words of every other view."""
    room = int(figure.get_figwidth() * _LETTERS)
    lines = [line for one in sentences for line in wrap(label(one, 1000), room)]
    figure.set_figheight(figure.get_figheight() + 0.1 + 0.15 * len(lines))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", size=8, color=SOFT)
    return figure


def render(make: Callable[[], Figure], kind: str) -> bytes:
    """The bytes of the figure that `make` draws: svg, png or pdf, the same for the same data.

    Raises UsageError for another format, or where matplotlib is missing.
    """
    if kind not in FORMATS:
        raise UsageError(f"-o: a name ending in .{', .'.join(FORMATS)}, not .{kind}")
    metadata = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}
    with settings():
        out = io.BytesIO()
        make().savefig(out, format=kind, metadata=metadata[kind])
        return out.getvalue()


def cosine_matrices(report: BankReport) -> tuple[F64, F64, float]:
    """The deltas' cosines as they are and in retrieval, and the magnitude of the full colour."""
    before, during = (np.array(m) for m in (report.cosine_before, report.cosine_during))
    apart = ~np.eye(len(before), dtype=bool)
    return before, during, max(0.1, float(np.abs(before[apart]).max(initial=0.0)))


def mean_magnitude(matrix: F64) -> float:
    """Of the entries off the diagonal."""
    return float(np.abs(matrix[~np.eye(len(matrix), dtype=bool)]).mean())


def cosine_figure(report: BankReport) -> Figure:
    """Pairwise cosines of the deltas as they are and during retrieval (paper Figure 3).

    Raises MissingError where there are no two tasks.
    """
    count = len(report.tasks)
    if count < 2:
        raise MissingError("cosines are of two tasks or more")
    before, during, limit = cosine_matrices(report)
    names = [task.name for task in report.tasks]
    room = 0.075 * max(len(label(name, panels.HEAT_LETTERS)) for name in names)
    side = min(9.0, max(3.0, 0.4 * count))
    figure, axes = subplots(2 * side + room + 0.6, side + room + 0.5, 2, layout="compressed")
    pair = ((before, "before"), (during, "during retrieval"))
    for axis, (matrix, title) in zip(axes, pair, strict=True):
        panels.heat(axis, names, matrix, limit, left=axis is axes[0])
        axis.set_title(f"{title}: mean |cosine| {mean_magnitude(matrix):.4f}")
    if count > panels.MOST_NUMBERS:
        axes[0].set_xlabel(f"orange: alike, blue: opposed; in full colour at {limit:.2f}")
    return figure


def kept_groups(rows: Sequence[GroupRow]) -> list[GroupRow]:
    """As many groups of tensors as a picture has room for, in the order that they came in."""
    most = sorted(rows, key=lambda row: -row.share)[:MOST_GROUPS]
    names = {row.name for row in most}
    return [row for row in rows if row.name in names]


def layers_figure(types: Sequence[GroupRow], layers: Sequence[GroupRow]) -> Figure:
    """Predicted cosine, and cosines before and during retrieval, by type and by layer.

    Raises MissingError where no tensor is superposed.
    """
    from matplotlib.figure import Figure

    kept = [
        ("type", sorted(kept_groups(types), key=lambda row: row.predicted_cosine), len(types)),
        ("layer", kept_groups(layers), len(layers)),
    ]
    shown = [one for one in kept if one[1]]
    if not shown:
        raise MissingError("no tensor of this bank is superposed")
    height = 1.2 + sum(0.24 * max(2, len(rows)) + 0.7 for _, rows, _ in shown)
    figure = Figure(figsize=(10, height), layout="constrained")
    grid = figure.add_gridspec(
        len(shown), 2, height_ratios=[max(2, len(rows)) for _, rows, _ in shown]
    )
    names: Any = None
    for line, (by, rows, total) in enumerate(shown):
        known = any(row.before is not None for row in rows)
        axis = figure.add_subplot(grid[line, 0] if known else grid[line, :])
        panels.cosines(axis, rows)
        more = f" ({len(rows)} of {total} with the most energy)" if total > len(rows) else ""
        axis.set_title(f"predicted retrieval cosine by {by}{more}")
        if known:
            beside = figure.add_subplot(grid[line, 1])
            panels.overlaps(beside, rows, left=False)
            names = beside.get_legend_handles_labels()
    if names is not None:
        figure.legend(*names, loc="outside upper right", ncols=2)
    return figure


def distribution_figure(found: Distribution) -> Figure:
    """Cosines of layers within and across models, one line a kind (paper Figure 2).

    Raises MissingError where there is no pair of deltas.
    """
    if not (found.within or found.across or found.during):
        raise MissingError("there is no pair of deltas to compare")
    figure, (axis,) = subplots(7.5, 4.4)
    panels.distribution(axis, found)
    source = "measured on the checkpoints" if found.measured else "from stored statistics"
    axis.set_title(f"how alike deltas are, {source}")
    return figure


def size_figure(report: BankReport) -> Figure:
    """Bytes of the bank against separate checkpoints, and of its neighbours against quality.

    Raises MissingError for a bank without tasks.
    """
    if not report.tasks:
        raise MissingError("no tasks are left in this bank")
    both = bool(report.alternatives)
    figure, axes = subplots(10 if both else 5, 4.2, 1 + both)
    panels.sizes(axes[0], report)
    axes[0].set_title(
        f"{times(report.ratio_to_separate, 2)} separate"
        + (f", {times(report.ratio_to_base, 2)} base" if report.ratio_to_base else "")
    )
    if both:
        panels.choices(axes[1], report.alternatives)
        axes[1].set_title("with other bits and groups")
    return figure


def lambda_figure(curves: Curves, used: dict[str, float]) -> Figure:
    """One line a task: the scores that `tune` measured, or the error to expect, against λ.

    `used` is the λ that each task comes back with. Raises MissingError for a bank without tasks.
    """
    if not curves.by_task:
        raise MissingError("no tasks are left in this bank")
    rows = -(-min(len(curves.by_task), panels.MOST_LEGEND) // 2)
    figure, (axis,) = subplots(7.5, 4.2 + 0.18 * rows)
    panels.lambdas(axis, curves, used)
    if curves.measured:
        axis.set_title("scores by coefficient, measured by tune")
    else:
        axis.set_title("the least predicted error is not the best score: randes tune finds that")
    return figure
