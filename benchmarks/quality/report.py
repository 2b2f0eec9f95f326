"""docs/results.md from the cells: every number in it was measured, and what is missing is said."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import catalogue
import comparisons
import earlier
import goals
from beds import CACHE, Bed
from results import DOCS, PICTURES, Results, table

LIVE = """\
Base and tasks in bfloat16, banks that can be edited, bytes over those of the base in bfloat16. Of
two tasks it is the first two, of 32 the same under other names."""
LAMBDA = """\
What a rule gives away of the gain beside the best λ of each bank: mean over banks, then over
families; *families held out*: n fitted to the others (`fit_lambda.py`). The curves, of the share of
the gain on the validation part, one seed, are in [results/lambda.json](results/lambda.json)."""
TRIED = """\
Gain kept by prototypes in memory (`prototypes.py`), each beside the product's own way at the same
bits: block-Hadamard rotations of rows and columns before cutting; for half a bit sixteen vectors of
eight numbers, or a share that follows the spread of rows; rounding errors carried along a row; the
mean of a group's deltas kept by itself; and singular values of what comes back shrunk as is best
for its noise. *own* is a group for each task."""


def coverage(all_results: Sequence[Results], missing: Sequence[str]) -> str:
    """What ran, with how many seeds, and what did not."""
    body = []
    for results in all_results:
        row = [results.bed.title]
        for part in catalogue.PARTS:
            wanted = catalogue.rows(part, len(results.bed.tasks))
            found = [results.rows[m.name] for m in wanted if m.name in results.rows]
            random = {m.name for m in wanted if m.seeds}
            thrice = sum(len(r.cells) == len(catalogue.SEEDS) for r in found if r.name in random)
            row.append(f"{len(found)} of {len(wanted)}; {thrice} with 3 seeds")
        body.append(row)
    text = table(("bed", *catalogue.PARTS), body)
    return text + (f"\n\nNot run at all: {', '.join(missing)}." if missing else "")


def write_csv(all_results: Sequence[Results]) -> None:
    """One line per cell and task, for whoever wants to draw something else."""
    with (PICTURES / "two-sided.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("bed", "method", "seed", "bytes", "base_bytes", "knob", "task", "score"))
        for results in all_results:
            for row in results.rows.values():
                for cell in row.cells:
                    sizes = (cell.nbytes, cell.base_bytes, cell.knob)
                    for task, score in cell.scores.items():
                        words = (cell.bed, cell.method, cell.seed, *sizes, task, f"{score:.5f}")
                        out.writerow(words)


def write(beds: Mapping[str, Callable[[], Bed]]) -> Path:
    """Write docs/results.md and its pictures from the cells that there are."""
    ran = [n for n in beds if list((CACHE / "cells" / n).glob("fine-tuned@*.json"))]
    if not ran:
        raise SystemExit(f"{CACHE}: has no cells, so there is nothing to report")
    all_results = [Results(beds[name]()) for name in ran]
    by_name = {results.bed.name: results for results in all_results}
    words = {
        name: Path(__file__).with_name(f"{name}.md").read_text("utf-8")
        for name in ("introduction", "found")
    }
    sections = [
        f"# Results\n\n{words['found']}",
        f"## Goals\n\n{goals.goals(by_name)}\n",
        words["introduction"],
    ]
    for results in all_results:
        sections.append(f"## {results.bed.title}\n\n{results.bed.story}\n")
        sections.append(f"{comparisons.told_table(results)}\n")
        for tasks in catalogue.CROWDED:
            if results.told(tasks):
                heading = f"### {tasks} tasks (the same again under other names)"
                sections.append(f"{heading}\n\n{comparisons.told_table(results, tasks)}\n")
        sections.append(f"### Other methods\n\n{comparisons.others_table(results)}\n")
        sections.append(f"{comparisons.size_picture(results)}\n")
    sections += [
        f"## By type of tensor\n\n{comparisons.kinds_table(all_results)}\n",
        f"## Eight bits against sixteen, live\n\n{LIVE}\n\n{comparisons.live_table(all_results)}\n",
        f"## What was tried and is not taken\n\n{TRIED}\n\n"
        f"{comparisons.prototypes_table(all_results)}\n",
        f"## λ\n\n{LAMBDA}\n\n{comparisons.rules_table()}\n",
        f"## Earlier, with hankel signs\n\n{earlier.section()}\n",
        f"## What ran\n\n{coverage(all_results, [name for name in beds if name not in ran])}\n",
    ]
    write_csv(all_results)
    path = DOCS / "results.md"
    path.write_text("\n".join(sections), "utf-8")
    return path
