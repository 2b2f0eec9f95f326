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
from typing import Any

import numpy as np

from randes_cli import __version__
from randes_cli.core.arrays import F64
from randes_cli.core.prediction.verdict import approximate
from randes_cli.errors import counted, printable
from randes_cli.ops.describe import BankReport
from randes_cli.ops.distribution import Distribution
from randes_cli.stats.breakdown import GroupRow
from randes_cli.stats.curves import Curves
from randes_cli.stats.room import room_words
from randes_cli.views import panels
from randes_cli.views.answers import answer
from randes_cli.views.figures import cosine_matrices, kept_groups, mean_magnitude
from randes_cli.views.page_tables import Table, choice_table, group_table, task_table
from randes_cli.views.svg import Picture, can_draw, picture
from randes_cli.views.text import PLACES, human, label, times

#: Tasks in the matrices of cosines; those most like another are kept.
MOST_TASKS = 200
#: Inches of a picture: as wide as a column, so that its letters are as large as the page's.
WIDE = 4.8


@dataclass(frozen=True, slots=True)
class PageData:
    """All that a page shows; `report` has its rows by type, `layers` are those by layer."""

    report: BankReport
    layers: Sequence[GroupRow]
    curves: Curves
    distribution: Distribution


@dataclass(frozen=True, slots=True)
class Image:
    """A picture with its heading; `key` names the matrix that it shows to the page's script."""

    title: str
    picture: Picture
    key: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A section: what it is about, pictures, a table, a remark."""

    title: str
    words: str
    pictures: Sequence[Image] = ()
    table: Table | None = None
    note: str = ""
    kind: str = "chart"


def _cards(report: BankReport) -> list[dict[str, str]]:
    cards = [
        (human(report.bank_bytes), "bank"),
        (times(report.ratio_to_base, 2), "the base"),
        (times(report.ratio_to_separate, 3), "separate checkpoints"),
        (str(len(report.tasks)), "task" if len(report.tasks) == 1 else "tasks"),
    ]
    return [{"value": value, "name": name} for value, name in cards if value != "-"]


def _facts(report: BankReport) -> list[tuple[str, str]]:
    live = f"{report.bits} bits, " if len(report.sealed) < report.groups else ""
    if report.room is not None:
        live += f"room for {room_words(report.room)}, "
    pairs = [
        (
            "base",
            f"{report.base_name} ({counted(report.base_tensors, 'tensor')}, "
            f"{PLACES[report.base_storage]})",
        ),
        ("content", report.base_fingerprint),
        (
            "transform",
            f"{report.transform} (shuffle {report.shuffle}, signs {report.signs}, targets "
            f"{report.targets}, every {report.every}, rest {report.rest})",
        ),
        (
            "superposition",
            f"{live}{counted(report.groups, 'group')}, seed {report.seed}",
        ),
    ]
    if report.sealed:
        cut = (f"group {group} at {counted(bits, 'bit')}" for group, bits in report.sealed.items())
        pairs.append(("sealed", ", ".join(cut)))
    if report.shares:
        shares = (f"group {group}: 1/{every}" for group, every in report.shares.items())
        pairs.append(("share of the elements", ", ".join(shares)))
    if report.forgotten:
        pairs.append(("forgotten", f"{counted(report.forgotten, 'task')} left as interference"))
    pairs += [("approximate", words) for words in approximate(report.tasks)]
    return [(name, printable(value)) for name, value in pairs]


def _shown(report: BankReport) -> list[int]:
    """The places of the tasks whose cosines are shown, in the order of the bank."""
    count = len(report.tasks)
    if count <= MOST_TASKS:
        return list(range(count))
    alike = np.abs(np.array(report.cosine_before, np.float64))
    np.fill_diagonal(alike, 0.0)
    return sorted(np.argsort(-alike.max(axis=1), kind="stable")[:MOST_TASKS].tolist())


def _interference(report: BankReport, draw: bool) -> Part:
    before, during, limit = cosine_matrices(report)
    places = _shown(report)
    names = [report.tasks[place].name for place in places]
    room = 0.07 * max(len(label(name, panels.HEAT_LETTERS)) for name in names)
    side = max(0.7 * WIDE, 0.34 * min(len(names), panels.MOST_NUMBERS)) + room
    images = []
    for key, title, matrix in (
        ("before", "as they are", before),
        ("during", "as they meet in retrieval", during),
    ):
        part: F64 = matrix[np.ix_(places, places)]
        words = f"{title}: mean magnitude {mean_magnitude(matrix):.4f}"
        if draw:
            made = picture(
                lambda axis, part=part: panels.heat(axis, names, part, limit),  # type: ignore[misc]
                f"Cosines between the deltas of {len(names)} tasks, {words}",
                *(side, side),
                layout="compressed",
            )
            images.append(Image(words, made, key))
    notes = []
    if not draw:
        means = f"{mean_magnitude(before):.4f} as they are, {mean_magnitude(during):.4f}"
        notes.append(f"Mean magnitude {means} in retrieval.")
    if len(places) < len(report.tasks):
        notes.append(
            f"The {len(places)} of {len(report.tasks):,} tasks that are most like another."
        )
    if report.estimated:
        notes.append(f"{len(report.estimated):,} pairs are estimates.")
    words = "Cosines between the tasks' deltas. What is left in retrieval is interference."
    return Part("Interference", words, images, note=" ".join(notes), kind="heat")


def _groups(key: str, title: str, head: str, rows: Sequence[GroupRow], draw: bool) -> Part:
    words = "Where the deltas' energy is, and how near it comes back at λ = 1."
    if not draw:
        return Part(title, words, table=group_table(key, head, rows))
    kept = kept_groups(rows)
    high = 0.6 + 0.24 * max(2, len(kept))
    images = _one(
        "predicted cosine",
        lambda axis: panels.cosines(axis, kept),
        f"Predicted cosine of {len(kept)} {title.lower()}; the table has the figures",
        high,
    )
    if any(row.before is not None for row in kept):
        images += _one(
            "cosines between tasks, before (circles) and in retrieval (squares)",
            lambda axis: panels.overlaps(axis, kept),
            f"Mean magnitude of the tasks' cosines in {len(kept)} {title.lower()}",
            high,
        )
    return Part(title, words, images, group_table(key, head, rows))


def _one(title: str, draw: Any, words: str, high: float) -> list[Image]:
    return [Image(title, picture(draw, words, WIDE, high))]


def _more(data: PageData) -> list[Part]:
    """Bytes, distribution and coefficients: nothing but pictures."""
    report, found, curves = data.report, data.distribution, data.curves
    parts = []
    if report.tasks:
        words = f"{human(report.bank_bytes)} in place of {human(report.separate_bytes)}"
        image = _one(words, lambda axis: panels.sizes(axis, report), f"Bytes: {words}", 3.2)
        parts.append(Part("Bytes", "What the bank is made of.", image))
    if found.across or found.during or found.within:
        source = "the checkpoints" if found.measured else "stored statistics"
        words = "Cosines of single tensors, one value for each pair of tasks."
        image = _one(f"from {source}", lambda axis: panels.distribution(axis, found), words, 3.9)
        parts.append(Part("Distribution", words, image))
    if curves.by_task:
        used = {task.name: task.coefficient for task in report.tasks}
        words = "The least predicted error is not the best score: randes tune finds that."
        words = "Scores by coefficient, measured by tune." if curves.measured else words
        rows = -(-min(len(curves.by_task), panels.MOST_LEGEND) // 2)
        image = _one(
            "by λ", lambda axis: panels.lambdas(axis, curves, used), words, 3.4 + 0.17 * rows
        )
        parts.append(Part("Coefficients", words, image))
    return parts


def _parts(data: PageData, draw: bool) -> list[Part]:
    report = data.report
    parts = []
    if report.tasks:
        words = "Of each retrieved delta: what it keeps, and its cosine with the original."
        parts.append(Part("Tasks", words, table=task_table(report)))
    if len(report.tasks) > 1:
        parts.append(_interference(report, draw))
    types = sorted(report.rows, key=lambda row: -row.share)
    if types:
        parts.append(_groups("types", "Types", "type of tensor", types, draw))
    if data.layers:
        parts.append(_groups("layers", "Layers", "layer", data.layers, draw))
    if report.alternatives:
        words = (
            "The same tasks with other bits, groups and shares of the elements: what of their gain "
            "over the base is predicted to be kept. None keeps as much in fewer bytes; the bold "
            "line is this bank."
        )
        images = (
            _one(
                "bytes and quality",
                lambda axis: panels.choices(axis, report.alternatives),
                "Gain kept by bytes of the bank, predicted; the table has the figures",
                3.6,
            )
            if draw
            else []
        )
        parts.append(Part("Choices", words, images, choice_table(report)))
    return parts + (_more(data) if draw else [])


def _json(report: BankReport) -> str:
    """What the script needs; no character can end the element it stands in."""
    places = _shown(report)
    pair = (report.cosine_before, report.cosine_during)
    before, during = (
        [[round(matrix[row][column], 5) for column in places] for row in places] for matrix in pair
    )
    names = [printable(report.tasks[place].name) for place in places]
    made = {"names": names, "before": before, "during": during}
    body = json.dumps(made, separators=(",", ":"))
    for char in "<>&":
        body = body.replace(char, f"\\u{ord(char):04x}")
    return body


def _allow(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def report_page(data: PageData) -> str:
    """The whole page; without matplotlib its tables alone, and it says so."""
    from jinja2 import Environment, StrictUndefined

    home = files("randes_cli.views")
    style, script, body = (
        (home / f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_allow(style)}; "
        f"script-src {_allow(script)}; base-uri 'none'; form-action 'none'"
    )
    draw = can_draw()
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(body)
    return template.render(
        title=printable(PurePath(data.report.bank).name),
        policy=policy,
        style=style,
        script=script,
        answer=answer(data.report, data.curves),
        cards=_cards(data.report),
        facts=_facts(data.report),
        parts=_parts(data, draw),
        data=_json(data.report),
        version=__version__,
        plain=not draw,
    )
