"""The run before two-sided signs: `docs/results/cells.csv`, whose models are gone."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from statistics import mean

from results import PICTURES, percent, table

INTRODUCTION = """\
These cells are of the run before two-sided signs, whose models were not kept: λ is the best of ten
on a validation part, one seed or up to three, and `T=n` banks are filled with copies. They show
where randes does not win, and the beds that were not trained again."""


def section() -> str:
    """Every method on every bed."""
    scores: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    sizes: dict[tuple[str, str], float] = {}
    with (PICTURES / "cells.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores[row["bed"]][row["method"]][row["task"]].append(float(row["score"]))
            sizes[row["bed"], row["method"]] = int(row["bytes"]) / int(row["base_bytes"])
    parts = [INTRODUCTION]
    for bed, methods in scores.items():
        named = {n: m for n, m in methods.items() if not n.startswith(("ablation", "default"))}
        body = [
            (name, f"{sizes[bed, name]:.3f}", *_kept(methods, tasks))
            for name, tasks in sorted(named.items(), key=lambda one: sizes[bed, one[0]])
        ]
        head = ("method", "bytes / base", "accuracy kept", "gain kept")
        parts.append(f"### {bed}\n\n{table(head, body)}")
    return "\n\n".join(parts)


def _kept(
    methods: Mapping[str, Mapping[str, list[float]]], tasks: Mapping[str, list[float]]
) -> tuple[str, str]:
    def whole(name: str) -> float:
        return mean(mean(methods[name][task]) for task in tasks)

    accuracy = mean(mean(own) / mean(methods["fine-tuned"][task]) for task, own in tasks.items())
    own, floor = mean(mean(values) for values in tasks.values()), whole("base")
    return percent(accuracy), percent((own - floor) / (whole("fine-tuned") - floor))
