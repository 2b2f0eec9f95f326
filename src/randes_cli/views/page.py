"""A bank's report as one HTML page that needs nothing else: no network, no other file.

Every name is escaped, and the page's policy lets the page's own script and style run alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from statistics import fmean

import numpy as np

from randes_cli import __version__
from randes_cli.core.arrays import F64
from randes_cli.core.verdict import kept, sentences
from randes_cli.errors import printable
from randes_cli.ops.describe import BankReport
from randes_cli.ops.distribution import Distribution
from randes_cli.stats.breakdown import GroupRow
from randes_cli.stats.curves import Curves
from randes_cli.views.charts import (
    Matrix,
    bar,
    heatmap,
    histogram,
    legend,
    line_chart,
    stacked,
    text,
)
from randes_cli.views.text import human, times

#: Rows of a table of types or layers; those with the most energy are kept.
MOST_ROWS = 1000
#: Tasks in the matrices of cosines; those most like another are kept.
MOST_TASKS = 200


@dataclass(frozen=True, slots=True)
class PageData:
    """All that a page shows; `report` has its rows by type, `layers` are those by layer."""

    report: BankReport
    layers: Sequence[GroupRow]
    curves: Curves
    distribution: Distribution


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: its HTML, and the number that it is sorted by (None: its text)."""

    html: str
    value: float | None = None


def _number(value: float | None, form: str) -> Cell:
    return Cell("–", -1e308) if value is None else Cell(format(value, form), value)


def _bytes(size: int) -> Cell:
    return Cell(human(size), size)


def _name(words: str) -> Cell:
    return Cell(text(words))


def _table(
    key: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]], bold: Sequence[int] = ()
) -> str:
    """A sortable table; cells without a number are names."""
    names = [all(row[n].value is None for row in rows) for n in range(len(heads))]

    def cell(tag: str, n: int, body: str, value: float | None = None) -> str:
        style = ' class="name"' if names[n] else ""
        number = "" if value is None else f' data-v="{value:.9g}"'
        return f"<{tag}{style}{number}>{body}</{tag}>"

    top = "".join(
        cell("th", n, f'<button type="button">{text(head)}</button>')
        for n, head in enumerate(heads)
    )
    body = "".join(
        ('<tr class="here">' if place in bold else "<tr>")
        + "".join(cell("td", n, one.html, one.value) for n, one in enumerate(row))
        + "</tr>"
        for place, row in enumerate(rows)
    )
    return (
        f'<div class="scroll"><table id="{key}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _quality(value: float) -> list[Cell]:
    return [Cell(f"{value:.3f}", value), Cell(bar(value), value)]


def _tasks(report: BankReport) -> str:
    heads = [
        "task",
        "keeps",
        "predicted cosine",
        "",
        "rel. error",
        "λ",
        "nearest task",
        "cosine to it",
    ]
    heads += ["index", "group", "checkpoint", "own bytes", "summed", "own", "unchanged", "missing"]
    rows = []
    for task, detail in zip(report.tasks, report.details, strict=True):
        counts = (task.superposed, task.own, task.unchanged, task.missing)
        rows.append(
            [
                _name(task.name),
                Cell(kept(task), task.predicted_cosine),
                *_quality(task.predicted_cosine),
                _number(detail.predicted_error, ".2f"),
                _number(task.coefficient, "g"),
                _name(detail.nearest or "–"),
                _number(detail.nearest_cosine, ".4f"),
                Cell(str(task.index), task.index),
                Cell(str(detail.group), detail.group),
                _bytes(detail.checkpoint_bytes),
                _bytes(detail.own_bytes),
                *(Cell(f"{count:,}", count) for count in counts),
                _name(detail.source),
            ]
        )
    return _table("tasks", [*heads, "source"], rows)


def _groups(key: str, title: str, rows: Sequence[GroupRow]) -> str:
    kept = sorted(rows, key=lambda row: -row.share)[:MOST_ROWS] if len(rows) > MOST_ROWS else rows
    heads = [title, "predicted cosine", "", "rel. error", "energy", "before", "during"]
    cells = [
        [
            _name(row.name),
            *_quality(row.predicted_cosine),
            _number(row.predicted_error, ".2f"),
            _number(row.share, ".1%"),
            _number(row.before, ".4f"),
            _number(row.during, ".4f"),
            Cell(f"{row.tensors:,}", row.tensors),
            Cell(f"{row.elements:,}", row.elements),
        ]
        for row in kept
    ]
    left = len(rows) - len(kept)
    note = f'<p class="soft">{left:,} more have less energy.</p>' if left else ""
    return _table(key, [*heads, "tensors", "elements"], cells) + note


def _choices(report: BankReport) -> str:
    rows = [
        [
            Cell(str(one.groups), one.groups),
            Cell(str(one.bits), one.bits),
            _bytes(one.bank_bytes),
            *_quality(one.predicted_cosine),
        ]
        for one in report.alternatives
    ]
    here = [n for n, one in enumerate(report.alternatives) if one.present]
    heads = ["groups", "bits", "bank", "predicted cosine", ""]
    return _table("choices", heads, rows, here)


def _cards(report: BankReport) -> str:
    cards = [
        (human(report.bank_bytes), "bank"),
        (times(report.ratio_to_base, 2), "the base"),
        (times(report.ratio_to_separate, 3), "separate checkpoints"),
        (str(len(report.tasks)), "tasks"),
    ]
    if report.tasks:
        cosines = [task.predicted_cosine for task in report.tasks]
        cards.append((f"{fmean(cosines):.3f}", "predicted cosine, mean"))
        cards.append((f"{min(cosines):.3f}", "predicted cosine, least"))
    items = "".join(f"<li><b>{text(value)}</b>{text(name)}</li>" for value, name in cards)
    return f'<ul class="cards">{items}</ul>'


def _facts(report: BankReport) -> str:
    pairs = [
        ("base", f"{report.base_source} ({report.base_tensors:,} tensors, {report.base_storage})"),
        ("content", report.base_fingerprint),
        (
            "transform",
            f"{report.transform} (shuffle {report.shuffle}, signs {report.signs}, targets "
            f"{report.targets}, every {report.every}, rest {report.rest})",
        ),
        (
            "superposition",
            f"{report.bits} bits, {report.groups} group{'s' * (report.groups > 1)}, "
            f"seed {report.seed}",
        ),
    ]
    if report.sealed:
        cut = (f"group {group} at {bits} bits" for group, bits in report.sealed.items())
        pairs.append(("sealed", ", ".join(cut)))
    if report.shares:
        shares = (f"group {group}: 1/{every}" for group, every in report.shares.items())
        pairs.append(("share of the elements", ", ".join(shares)))
    if report.forgotten:
        pairs.append(("forgotten", f"{report.forgotten} tasks remain as interference"))
    body = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs)
    return f"<dl>{body}</dl>"


def _sizes(report: BankReport) -> str:
    inside = report.base_bytes if report.base_storage == "embed" else 0
    other = report.bank_bytes - inside - report.sum_bytes - report.own_bytes
    parts: list[tuple[str, float]] = [
        (f"base {human(inside)}", inside),
        (f"superposition {human(report.sum_bytes)}", report.sum_bytes),
        (f"own tensors {human(report.own_bytes)}", report.own_bytes),
        (f"manifest, statistics {human(other)}", max(0, other)),
    ]
    whole = max(report.bank_bytes, report.separate_bytes)
    return (
        f"<p>The bank, out of {human(report.separate_bytes)} of separate checkpoints:</p>"
        + stacked(parts, whole)
        + legend([name for name, _ in parts])
    )


def _apart(matrix: Matrix) -> F64:
    """Magnitudes of the cosines of different tasks."""
    made = np.abs(np.array(matrix, np.float64))
    np.fill_diagonal(made, 0.0)
    return made


def _shown(report: BankReport) -> list[int]:
    """The places of the tasks whose cosines are shown, in the order of the bank."""
    count = len(report.tasks)
    if count <= MOST_TASKS:
        return list(range(count))
    alike = _apart(report.cosine_before).max(axis=1)
    return sorted(np.argsort(-alike, kind="stable")[:MOST_TASKS].tolist())


def _part(matrix: Matrix, places: Sequence[int]) -> list[list[float]]:
    return [[matrix[row][column] for column in places] for row in places]


def _cosines(report: BankReport) -> str:
    count, places = len(report.tasks), _shown(report)
    names = [report.tasks[place].name for place in places]
    scale = max(0.1, float(_apart(report.cosine_before).max()))
    made = []
    for key, title, matrix in (
        ("before", "as they are", report.cosine_before),
        ("during", "as they meet in retrieval", report.cosine_during),
    ):
        mean = float(_apart(matrix).sum()) / (count * (count - 1))
        made.append(
            f"<figure><figcaption>{title}: mean magnitude {mean:.4f}</figcaption>"
            f"{heatmap(names, _part(matrix, places), scale, key)}</figure>"
        )
    notes = []
    if len(places) < count:
        notes.append(f"The {len(places)} of {count:,} tasks that are most like another.")
    if report.estimated:
        notes.append(f"{len(report.estimated):,} pairs are estimates.")
    said = f'<p class="soft">{" ".join(notes)}</p>' if notes else ""
    return f'<div class="pair">{"".join(made)}</div>{said}'


def _section(title: str, words: str, body: str) -> str:
    return f'<section><h2>{text(title)}</h2><p class="soft">{text(words)}</p>{body}</section>'


def _sections(data: PageData) -> list[str]:
    report = data.report
    words = "".join(f"<p>{text(one)}.</p>" for one in sentences(report.tasks))
    made = [_cards(report), words, _facts(report)]
    if report.tasks:
        words = "Predicted cosine of each retrieved delta with its original; 1 is exact."
        made.append(_section("Tasks", words, _tasks(report)))
    if len(report.tasks) > 1:
        words = "Cosines between the tasks' deltas. What is left in retrieval is interference."
        made.append(_section("Interference", words, _cosines(report)))
    words = "Where the deltas' energy is, and how near it comes back."
    types = sorted(report.rows, key=lambda row: -row.share)
    if types:
        made.append(_section("Types", words, _groups("types", "type of tensor", types)))
    if data.layers:
        made.append(_section("Layers", words, _groups("layers", "layer", data.layers)))
    made.append(_section("Bytes", "What the bank is made of.", _sizes(report)))
    if report.alternatives:
        words = "The same tasks with other bits and groups, predicted; the bold line is this bank."
        made.append(_section("Choices", words, _choices(report)))
    found = data.distribution
    series = {"across models": found.across, "in retrieval": found.during, "within": found.within}
    known = {name: values for name, values in series.items() if values}
    if known:
        words = "Cosines of single tensors, one value for each pair of tasks."
        made.append(_section("Distribution", words, histogram(known, "cosine")))
    if data.curves.by_task:
        words = "Scores by coefficient, measured by tune."
        label = "score"
        if not data.curves.measured:
            words = "Predicted relative error by coefficient; randes tune measures scores."
            label = "relative error"
        chart = line_chart(data.curves.by_task, ("coefficient λ", label))
        made.append(_section("Coefficients", words, chart))
    return made


def _json(report: BankReport) -> str:
    """What the script needs; no character can end the element it stands in."""
    places = _shown(report)
    pair = _part(report.cosine_before, places), _part(report.cosine_during, places)
    before, during = ([[round(v, 5) for v in row] for row in matrix] for matrix in pair)
    body = json.dumps(
        {
            "names": [printable(report.tasks[place].name) for place in places],
            "before": before,
            "during": during,
        },
        separators=(",", ":"),
    )
    for char in "<>&":
        body = body.replace(char, f"\\u{ord(char):04x}")
    return body


def _allow(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def report_page(data: PageData) -> str:
    """The whole page."""
    home = files("randes_cli.views")
    style, script = ((home / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_allow(style)}; "
        f"script-src {_allow(script)}; base-uri 'none'; form-action 'none'"
    )
    name = text(PurePath(data.report.bank).name)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{name}: randes report</title><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><header><h1>{name}</h1></header>"
        f"<main>{''.join(_sections(data))}</main>"
        f"<footer>Made by randes {__version__} from the bank's own statistics.</footer>"
        '<div id="tip" role="status" hidden></div>'
        f'<script type="application/json" id="data">{_json(data.report)}</script>'
        f"<script>{script}</script></body></html>\n"
    )
