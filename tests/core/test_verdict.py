"""What is said of a cosine is what measured models kept at it."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from math import sqrt
from pathlib import Path
from statistics import fmean

import pytest

from randes_cli.core.levels import DISTORTION
from randes_cli.core.prediction.verdict import (
    BANDS,
    FAR,
    FAR_OUT,
    LOST,
    NEAR,
    UNKNOWN,
    by_word,
    judge,
    percent,
    sentences,
    share,
)
from randes_cli.reports import TaskSummary

DOCS = Path(__file__).parents[2] / "docs"
#: Fine-tunes of a bed; the far decoder's have long deltas.
TASKS = {"digits-large": 20, "decoder": 7, "decoder-far": 7}
FAR_BED = "decoder-far"
#: Half a point: what three seeds differ by.
NOISE = 0.005


def _banks(bed: str, method: str) -> tuple[int, int, int] | None:
    """Groups, bits and tasks of a bank by its name in the cells; None for other methods."""
    count = TASKS.get(bed, 8)
    if found := re.fullmatch(r"own delta (\d+) bit", method):
        return count, int(found[1]), count
    signs = "(?:hankel|two-sided)"
    if found := re.fullmatch(rf"{signs} (?:(\d+) x )?(\d+) bit", method):
        return int(found[1] or 1), int(found[2]), count
    if found := re.fullmatch(rf"scaling {signs} (?:(\d+) x )?(\d+) T=(\d+)", method):
        return int(found[1] or 1), int(found[2]), int(found[3])
    return None


def measured() -> list[tuple[str, float, float]]:
    """(bed, cosine, share of the accuracy kept) of every measured bank of full deltas."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (DOCS / "results" / "cells.csv").open() as file:
        for row in csv.DictReader(file):
            scores[row["bed"], row["method"]][row["task"]].append(float(row["score"]))
    found = []
    for (bed, method), tasks in scores.items():
        how = _banks(bed, method)
        if how is None or bed == "encoder-adapters":
            continue
        groups, bits, count = how
        whole = scores[bed, "fine-tuned"]
        kept = fmean(fmean(own) / fmean(whole[task]) for task, own in tasks.items())
        found.append((bed, sqrt((1 - DISTORTION.get(bits, 0)) * groups / count), kept))
    return found


def test_every_measured_bank_lies_in_the_range_that_is_told_of_its_cosine() -> None:
    found = measured()
    assert len(found) > 60
    for bed, cosine, kept in found:
        verdict = judge(cosine)
        told = verdict.far if bed == FAR_BED else verdict.kept
        assert told is not None, (bed, cosine, kept)
        assert told[0] - NOISE <= kept <= told[1] + NOISE, (bed, cosine, kept)


def test_no_range_is_wider_than_what_was_measured() -> None:
    found = measured()
    for verdict in BANDS:
        inside = [kept for bed, cos, kept in found if judge(cos) is verdict and bed != FAR_BED]
        if verdict.kept is None:
            assert not inside
            continue
        assert min(inside) - 2 * NOISE <= verdict.kept[0] and max(inside) > verdict.kept[1] - 0.01


def test_what_others_leave_of_a_cosine_says_nothing_and_of_factors_nothing_was_measured() -> None:
    assert judge(0.9, decorrelates=False) is UNKNOWN
    assert judge(1.0, decorrelates=False).word == "all"
    assert judge(0.95, factors=True) is judge(-0.5, factors=True) is UNKNOWN
    assert judge(1.0, factors=True).word == "all"


@pytest.mark.parametrize(
    ("cosine", "length", "word", "expected"),
    [
        (0.35, None, "most", (0.96, 1.0)),
        (0.35, NEAR, "most", (0.96, 1.0)),
        (0.35, NEAR + 0.01, "most", (0.77, 0.91)),
        (0.35, FAR, "most", (0.77, 0.91)),
        (0.35, FAR + 0.01, FAR_OUT.word, None),
        (0.95, FAR + 0.01, FAR_OUT.word, None),
        (0.2, NEAR, "much", (0.91, 1.0)),
        (0.2, NEAR + 0.01, FAR_OUT.word, None),
        (0.01, NEAR + 0.01, UNKNOWN.word, None),
        (1.0, 3.0, "all", (0.99, 1.0)),
    ],
)
def test_long_deltas_are_told_what_long_ones_kept_and_nothing_where_none_was_measured(
    cosine: float, length: float | None, word: str, expected: tuple[float, float] | None
) -> None:
    found = judge(cosine, length)
    assert (found.word, found.range(length)) == (word, expected)


def test_shares_are_written_alike_everywhere() -> None:
    assert [percent(0.9621), percent(1, 2)] == ["96.2 %", "100.00 %"]
    assert [share((0.611, 0.998)), share((0.611, 0.998), 1)] == ["61–100 %", "61.1–99.8 %"]
    assert [share((0.9991, 1.0)), share((0.9991, 1.0), 1)] == ["100 %", "99.9–100.0 %"]


def test_the_method_has_the_same_table() -> None:
    text = (DOCS / "method.md").read_text("utf-8")
    for verdict in BANDS:
        least = "below" if verdict is UNKNOWN else f"from {verdict.least:g}"
        kept, far = share(verdict.kept), share(verdict.far)
        assert f"| {least} | {verdict.word} | {kept} | {far} |" in text


def task(name: str, word: str, length: float | None = None) -> TaskSummary:
    return TaskSummary(name, 0, 0, 0, 0.5, 1.0, 1, 0, 0, 0, verdict=word, length=length)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["all"], ["the task keeps all of its accuracy: 99–100 % in measured cases"]),
        (
            ["most", "most"],
            [
                "both tasks keep most of their accuracy: 96–100 % in measured cases, 77–91 % "
                "where deltas were long"
            ],
        ),
        (
            ["part", "much", LOST.word],
            [
                "1 task (t1) keeps much of its accuracy: 91–100 % in measured cases, less where "
                "deltas were long",
                "1 task (t0) keeps part of its accuracy: 83–99 % in measured cases, less where "
                "deltas were long",
                "1 task (t2) keeps nothing of its gain over the base",
            ],
        ),
    ],
)
def test_tasks_are_told_by_verdict_the_best_first(words: list[str], said: list[str]) -> None:
    assert sentences([task(f"t{n}", word) for n, word in enumerate(words)]) == said
    assert all(by_word(word).word == word for word in words)


def test_what_is_said_of_long_deltas_is_said_apart() -> None:
    tasks = [
        task("a", "most", 0.1),
        task("b", "most", 0.3),
        task("c", FAR_OUT.word, 0.5),
        task("d", FAR_OUT.word, 0.61),
    ]
    assert sentences(tasks) == [
        "1 task (a) keeps most of its accuracy: 96–100 % in measured cases",
        "1 task (b) keeps most of its accuracy: 77–91 % in measured cases with deltas as long",
        "2 tasks (c, d) keep an unmeasured share of their accuracy: no model with so long a delta "
        "(0.61 of its base's length) was measured at such noise, so evaluate before you rely on it",
    ]
    assert (
        "(1.41 of its base's length; is it of another base?)"
        in sentences([task("e", FAR_OUT.word, 1.41)])[0]
    )
    assert sentences([task("f", "all", 0.1), task("g", "all", None), task("h", "all", 0.3)]) == [
        "all 3 tasks keep all of their accuracy: 99–100 % in measured cases"
    ]
