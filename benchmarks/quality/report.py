"""docs/results.md from the cells: every number in it was measured, and what is missing is said."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import catalogue
import comparisons
import studies
from beds import CACHE, Bed
from methods import Method
from results import DOCS, PICTURES, Results, table


def coverage(all_results: Sequence[Results], missing_beds: Sequence[str]) -> str:
    """What ran, with how many seeds, and what did not."""
    parts: dict[str, Callable[[], list[Method]]] = {
        "baselines": catalogue.baselines,
        "banks": catalogue.banks,
        "ablations": catalogue.ablations,
        "more tasks": catalogue.scaling,
        "default λ": catalogue.defaults,
    }
    body = []
    for results in all_results:
        row = [results.bed.title]
        for methods in parts.values():
            wanted = methods()
            found = [results.rows[m.name] for m in wanted if m.name in results.rows]
            random = {m.name for m in wanted if m.seeds}
            thrice = sum(len(r.cells) == len(catalogue.SEEDS) for r in found if r.name in random)
            row.append(f"{len(found)} of {len(wanted)}; {thrice} with 3 seeds")
        body.append(row)
    text = table(("bed", *parts), body)
    if missing_beds:
        text += "\n\nNot run at all: " + ", ".join(missing_beds) + "."
    return text


def write_csv(all_results: Sequence[Results]) -> None:
    """One line per cell and task, for whoever wants to draw something else."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with (PICTURES / "cells.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("bed", "method", "seed", "bytes", "base_bytes", "knob", "task", "score"))
        for results in all_results:
            for row in results.rows.values():
                for cell in row.cells:
                    sizes = (cell.nbytes, cell.base_bytes, cell.knob)
                    for task, score in cell.scores.items():
                        out.writerow(
                            (cell.bed, cell.method, cell.seed, *sizes, task, f"{score:.5f}")
                        )


TITLE = "# Results\n\n## In short\n"

INTRODUCTION = """\
## How it was measured

Made by `make bench-quality` (`benchmarks/quality/run.py`) from what it measured; do not edit.

Every model was trained for this, whole, on real data. A method packs all fine-tunes of a bed once
and gives each back; λ, one for all tasks as in the paper, is the best of 0.1, 0.2, ... 1.0 on one
part of the held-out examples, and scores are of the other part. Where a method's own paper tunes
something else (a share, a threshold), that is tuned in λ's place; TIES may go up to 1.6. Where no
λ curve is drawn the search goes down from the top and stops at the first value below the best.

*Normalised* is the mean over tasks of the score divided by the fine-tuned model's. *Bytes* are all
that lies on disk, the base included, in units of the base in float32; *bits a value* is what comes
on top of the base, for all tasks together. `G x b bit` is G groups of b bits each. Random methods
have up to three seeds (42, 43, 44); ± is half the range over them.

All rows of randes, and those of *own delta* (a group for each task, so that each has one
quantised delta of its own), went through `randes_cli.pack` and `Bank.retrieve`, and their bytes are
the size of the bank file, manifest, statistics and digests included. Ablations are computed in
memory, in float32, with the same signs and shuffles. Bytes of the other methods are those of what
they have to store, without any container.

TIES and DARE are what mergekit makes (every weight 1, a fifth kept for TIES; λ multiplies what it
adds to the base). TALL-masks, EMR and BitDelta are short implementations of their papers' formulas
on all tensors (`benchmarks/quality/methods.py`); BitDelta is without its distillation of scales.
"""


def write(beds: Mapping[str, Callable[[], Bed]]) -> Path:
    """Write docs/results.md and its pictures from the cells that there are."""
    ran = [n for n in beds if list((CACHE / "cells" / n).glob("fine-tuned@*.json"))]
    all_results = [Results(beds[name]()) for name in ran]
    by_name = {results.bed.name: results for results in all_results}
    missing = [name for name in beds if name not in ran]
    notes = Path(__file__).with_name("findings.md").read_text("utf-8")
    summary = Path(__file__).with_name("summary.md").read_text("utf-8")
    sections = [
        TITLE,
        summary,
        INTRODUCTION,
        f"## What was found\n\n{notes}",
        f"## What was aimed for\n\n{comparisons.goals(by_name)}\n",
        f"## Which transform\n\n{comparisons.transforms(all_results)}\n",
        f"## At equal bytes\n\n{comparisons.equal_bytes(all_results)}\n",
        f"## Bytes for a quality\n\n{comparisons.bytes_for_quality(all_results)}\n",
        f"## The default λ\n\n{comparisons.default_table(all_results)}\n",
    ]
    for results in all_results:
        story = results.bed.story
        sections += [
            f"## {results.bed.title}\n\n{story}\n\n{comparisons.main_table(results)}\n",
            f"{comparisons.size_picture(results)}\n\n{comparisons.curve_picture(results)}\n",
            f"### By task\n\n{comparisons.task_table(results)}\n",
            studies.scaling(results),
        ]
    sections += [
        f"## Ablations\n\nIn float32.\n\n{studies.ablation_tables(all_results)}",
        f"## Cosine against accuracy\n\n{studies.cosine_picture(all_results)}",
        f"## Deltas within and across models\n\n{studies.similarity_picture(all_results)}",
        f"## What ran\n\n{coverage(all_results, missing)}\n",
    ]
    write_csv(all_results)
    path = DOCS / "results.md"
    path.write_text("\n".join(section for section in sections if section), "utf-8")
    return path
