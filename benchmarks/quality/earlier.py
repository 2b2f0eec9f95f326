"""The run before two-sided signs: `docs/results/cells.csv`, whose models are gone."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping
from statistics import mean

from results import PICTURES, percent, table

INTRODUCTION = """\
From the run before two-sided signs, whose models were not kept: λ is the best of ten on a
validation part, one seed or up to three, and `T=n` banks are filled with copies. Of the beds that
were trained again only transforms are here; [results/cells.csv](results/cells.csv) has all."""
#: Beds that were trained again, and what of them was measured in this run alone.
AGAIN = ("digits", "encoder", "decoder")
ALONE = re.compile(r"(scaling )?(hankel|srsf|rsf|s|shift) \d+ (bit|T=\d+)|base|fine-tuned")


def section() -> str:
    """Every method on every bed, but for what was measured again."""
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
        if bed in AGAIN:
            named = {name: tasks for name, tasks in named.items() if ALONE.fullmatch(name)}
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
