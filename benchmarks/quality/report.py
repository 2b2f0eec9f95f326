"""docs/results.md from the cells: every number in it was measured, and what is missing is said."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import catalogue
import plots
from analysis import similarities
from beds import Bed
from measure import Cell, read_cells
from methods import Method

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "results"
#: The rows of the per-task tables and of the λ curves.
TELLING = (
    "base",
    "fine-tuned",
    "task arithmetic",
    "TALL-masks",
    "own delta 1 bit",
    "s 16 bit",
    "rsf 16 bit",
    "srsf 16 bit",
    "hankel 16 bit",
    "hankel 8 bit",
    "hankel 2 bit",
    "hankel 2 x 2 bit",
)
PRESETS = ("s", "shift", "rsf", "srsf", "hankel")
CURVES = ("task arithmetic", *(f"{preset} 16 bit" for preset in PRESETS))


@dataclass(frozen=True)
class Row:
    """One method on one bed: its seeds together."""

    cells: Sequence[Cell]
    tuned: Mapping[str, float]

    @property
    def name(self) -> str:
        return self.cells[0].method

    @property
    def normalised(self) -> float:
        """Mean over tasks and seeds of the score relative to the fine-tuned model's."""
        return mean(self._normalised(cell) for cell in self.cells)

    def _normalised(self, cell: Cell) -> float:
        return mean(score / self.tuned[task] for task, score in cell.scores.items())

    @property
    def spread(self) -> float:
        """Half the range over the seeds."""
        values = [self._normalised(cell) for cell in self.cells]
        return (max(values) - min(values)) / 2

    @property
    def absolute(self) -> float:
        return mean(cell.mean for cell in self.cells)

    @property
    def size(self) -> float:
        """Bytes on disk over the base's in float32."""
        return self.cells[0].nbytes / self.cells[0].base_bytes

    @property
    def bits(self) -> float:
        """Bits stored per value of the base, beyond the base itself."""
        return 32 * (self.size - 1)

    def score(self, task: str) -> float:
        return mean(cell.scores[task] for cell in self.cells)


class Results:
    """All rows of one bed by method."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        by_method: dict[str, list[Cell]] = {}
        for cell in read_cells(bed.name):
            by_method.setdefault(cell.method, []).append(cell)
        tuned = by_method["fine-tuned"][0].scores
        self.rows = {name: Row(cells, tuned) for name, cells in by_method.items()}

    def of(self, methods: Iterable[Method]) -> list[Row]:
        """The measured rows of some methods, in their order."""
        return [self.rows[method.name] for method in methods if method.name in self.rows]

    def value(self, name: str) -> float | None:
        """Normalised accuracy of a method, where it was run."""
        return self.rows[name].normalised if name in self.rows else None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _percent(value: float | None) -> str:
    return "not run" if value is None else f"{100 * value:.1f} %"


def _with_spread(row: Row) -> str:
    if len(row.cells) == 1:
        return _percent(row.normalised)
    return f"{100 * row.normalised:.1f} ± {100 * row.spread:.1f} %"


def main_table(results: Results) -> str:
    """The comparison of methods (paper, Tables 1, 2, 5 and 6)."""
    rows = results.of([*catalogue.baselines(), *catalogue.banks(), *catalogue.sealed()])
    return _table(
        ("method", "normalised", "accuracy", "bytes / base", "bits a value", "knob", "seeds"),
        (
            (
                row.name,
                _with_spread(row),
                f"{row.absolute:.4f}",
                f"{row.size:.3f}",
                f"{row.bits:.1f}",
                f"{row.cells[0].knob:g}",
                str(len(row.cells)),
            )
            for row in rows
        ),
    )


def task_table(results: Results) -> str:
    """Accuracy by task of the telling methods."""
    tasks = list(results.bed.tasks)
    rows = [results.rows[name] for name in TELLING if name in results.rows]
    if len(tasks) > 10:
        head = ("task", *(row.name for row in rows))
        body = [(task, *(f"{row.score(task):.3f}" for row in rows)) for task in tasks]
        return _table(head, body)
    body = [(row.name, *(f"{row.score(task):.3f}" for task in tasks)) for row in rows]
    return _table(("method", *tasks), body)


def size_picture(results: Results) -> str:
    """Accuracy against bytes."""
    families: dict[str, dict[str, tuple[float, float]]] = {}
    for row in results.of([*catalogue.baselines(), *catalogue.banks(), *catalogue.sealed()]):
        if row.name not in ("base", "fine-tuned"):
            family = families.setdefault(row.cells[0].family, {})
            family[row.name] = (row.size, row.normalised)
    path = PICTURES / f"{results.bed.name}-bytes.svg"
    plots.cloud(path, families, "bytes on disk / base in float32", "normalised accuracy")
    return _picture(path, "Accuracy against bytes")


def curve_picture(results: Results) -> str:
    """Validation accuracy against λ (paper, Figure 4)."""
    series = {
        name: [(float(knob), score) for knob, score in results.rows[name].cells[0].curve.items()]
        for name in CURVES
        if name in results.rows and results.bed.curves
    }
    if not series:
        return ""
    path = PICTURES / f"{results.bed.name}-lambda.svg"
    plots.lines(path, series, "λ", "accuracy on the validation half")
    return _picture(path, "Accuracy against λ")


def _picture(path: Path, title: str) -> str:
    return f"![{title}]({path.relative_to(DOCS).as_posix()})"


def scaling(results: Results) -> str:
    """Fuller and fuller banks."""
    rows = results.of(catalogue.scaling())
    if not rows:
        return ""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        label, _, count = row.name.removeprefix("scaling ").partition(" T=")
        series.setdefault(label, []).append((float(count), row.normalised))
    counts = sorted({int(count) for points in series.values() for count, _ in points})
    table = _table(
        ("tasks in the bank", *map(str, counts)),
        (
            (
                label,
                *(_percent(dict(points).get(float(count))) for count in counts),
            )
            for label, points in series.items()
        ),
    )
    path = PICTURES / f"{results.bed.name}-tasks.svg"
    plots.lines(path, series, "tasks in the bank", "normalised accuracy", log=True)
    fuller = len(results.bed.tasks) + len(results.bed.extra)
    story = (
        f"Scores are those of the first {len(results.bed.tasks)} tasks (of the first one, two, ... "
        f"where the bank holds fewer). Up to {fuller} tasks every one is a fine-tune of its own; "
        "beyond, deltas enter again under other names, with other signs."
    )
    picture = _picture(path, "Accuracy against tasks")
    return f"### More tasks\n\n{story}\n\n{table}\n\n{picture}\n\n{_crossing(results, counts)}\n"


def _crossing(results: Results, counts: Sequence[int]) -> str:
    """From how many tasks on one superposition is smaller than own deltas, and what it costs."""
    own = [f"own delta {bits} bit" for bits in (1, 2)]
    if any(name not in results.rows for name in ("hankel 2 bit", *own)):
        return ""
    body = []
    for count in counts:
        superposed = results.value(f"scaling hankel 2 T={count}")
        row = [str(count), f"{results.rows['hankel 2 bit'].bits:.1f}: {_percent(superposed)}"]
        for name in own:
            each = results.rows[name].bits / len(results.bed.tasks)
            row.append(f"{count * each:.1f}: {_percent(results.value(name))}")
        body.append(row)
    story = (
        "Bits a value and normalised accuracy of one hankel superposition at 2 bits, and of own "
        "deltas, whose quality does not depend on how many they are but whose bytes do:"
    )
    return f"{story}\n\n{_table(('tasks', 'hankel 2 bit', *own), body)}"


def ablation_tables(all_results: Sequence[Results]) -> str:
    """The paper's Figures 5 and 6 as one table over the beds."""
    wanted = [method.name for method in catalogue.ablations()]
    shown = [results for results in all_results if any(name in results.rows for name in wanted)]
    if not shown:
        return "Not run.\n"
    body = [
        (name.removeprefix("ablation "), *(_percent(results.value(name)) for results in shown))
        for name in wanted
    ]
    text = _table(("setting", *(results.bed.title for results in shown)), body) + "\n"
    for results in shown:
        values = {
            name.removeprefix("ablation "): results.rows[name].normalised
            for name in wanted
            if name in results.rows
        }
        path = PICTURES / f"{results.bed.name}-ablations.svg"
        plots.bars(path, values, "normalised accuracy")
        text += f"\n{_picture(path, f'Ablations, {results.bed.title}')}\n"
    return text


def cosine_picture(all_results: Sequence[Results]) -> str:
    """Cosine of the retrieved delta against accuracy (paper, Figure 7)."""
    series = {
        results.bed.title: [
            (mean(cell.cosines.values()), row.normalised)
            for row in results.rows.values()
            for cell in row.cells[:1]
            if cell.cosines and cell.family in (catalogue.RANDES, "ablation")
        ]
        for results in all_results
    }
    series = {title: points for title, points in series.items() if points}
    if not series:
        return "Not run.\n"
    path = PICTURES / "cosine.svg"
    plots.scatter(path, series, "cosine of retrieved and true delta", "normalised accuracy")
    return _picture(path, "Cosine against accuracy") + "\n"


def similarity_picture(all_results: Sequence[Results]) -> str:
    """Cosines within and across models (paper, Figure 2)."""
    found = {results.bed.title: similarities(results.bed) for results in all_results}
    path = PICTURES / "similarities.svg"
    plots.histograms(path, found)
    table = _table(
        ("bed", "within a model: mean, largest", "across models: mean, largest"),
        (
            (title, *(f"{mean(v):.3f}, {max(v):.3f}" for v in (s["within"], s["across"])))
            for title, s in found.items()
        ),
    )
    return f"{table}\n\n{_picture(path, 'Cosines within and across models')}\n"


def _best(rows: Iterable[Row], bits: float) -> Row | None:
    """The best row of at most so many bits a value (a tenth of slack for scales)."""
    fitting = [row for row in rows if row.bits <= 1.35 * bits]
    return max(fitting, key=lambda row: row.normalised, default=None)


def equal_bytes(all_results: Sequence[Results]) -> str:
    """At each budget: the best superposition, and the best that keeps each model by itself."""
    body = []
    for results in all_results:
        randes = results.of([*catalogue.banks(), *catalogue.sealed()])
        others = results.of(catalogue.baselines())
        own = [row for row in others if row.cells[0].family == catalogue.OWN]
        for bits in (1, 2, 4, 8, 16, 32):
            cells = []
            for rows in (randes, own):
                best = _best(rows, bits)
                cells.append(f"{_with_spread(best)} ({best.name})" if best else "nothing fits")
            body.append((results.bed.title, str(bits), *cells))
    head = ("bed", "bits a value, all tasks together", "best superposition", "best of own deltas")
    return _table(head, body)


def bytes_for_quality(all_results: Sequence[Results]) -> str:
    """The smallest file by which each family reaches a quality."""
    families = (catalogue.RANDES, catalogue.OWN, catalogue.COMPRESSION)
    body = []
    for results in all_results:
        known = [*catalogue.baselines(), *catalogue.banks(), *catalogue.sealed()]
        rows = [row for row in results.of(known) if row.name != "fine-tuned"]
        for wanted in (0.95, 0.98, 0.99, 0.995):
            cells = []
            for family in families:
                fitting = [
                    row
                    for row in rows
                    if row.cells[0].family == family and row.normalised >= wanted
                ]
                best = min(fitting, key=lambda row: row.size, default=None)
                cells.append(f"{best.size:.3f} × ({best.name})" if best else "not reached")
            body.append((results.bed.title, f"{100 * wanted:g} %", *cells))
    return _table(("bed", "normalised", "superposition", "own deltas", "masks"), body)


def transforms(all_results: Sequence[Results]) -> str:
    """Which transform wins across the beds: the reason for the default of `pack`."""
    body = []
    for bits in (16, 8, 4, 2):
        for results in all_results:
            found = {p: results.value(f"{p} {bits} bit") for p in PRESETS}
            measured = {p: value for p, value in found.items() if value is not None}
            if not measured:
                continue
            best = max(measured, key=lambda preset: measured[preset])
            body.append(
                (
                    results.bed.title,
                    f"{bits} bit",
                    *(
                        f"**{_percent(found[p])}**" if p == best else _percent(found[p])
                        for p in PRESETS
                    ),
                )
            )
    return _table(("bed", "width", *PRESETS), body)


@dataclass(frozen=True)
class Goal:
    """One line of what issue 6 asks for."""

    bed: str
    method: str
    accuracy: float
    size: float | None = None


GOALS = (
    Goal("encoder", "hankel 2 bit", 0.995, 1.07),
    Goal("encoder", "scaling hankel 2 T=96", 0.985),
    Goal("decoder", "hankel 2 bit", 0.965),
    Goal("decoder", "hankel 8 bit", 0.99, 1.25),
    Goal("decoder", "hankel 2 x 4 bit", 0.99, 1.25),
)


def goals(by_name: Mapping[str, Results]) -> str:
    """Reached or not."""
    body = []
    for goal in GOALS:
        results = by_name.get(goal.bed)
        row = results.rows.get(goal.method) if results else None
        wanted = f"≥ {_percent(goal.accuracy)}" + (f" at ≤ {goal.size:.2f} ×" if goal.size else "")
        if row is None:
            body.append((goal.bed, goal.method, wanted, "not run", ""))
            continue
        kept = goal.size is None or row.size <= goal.size + 0.005
        reached = "yes" if row.normalised >= goal.accuracy and kept else "**no**"
        found = f"{_with_spread(row)} at {row.size:.3f} ×"
        body.append((goal.bed, goal.method, wanted, found, reached))
    for results in by_name.values():
        ours, paper = results.value("hankel 2 bit"), results.value("srsf 16 bit")
        if ours is not None and paper is not None:
            reached = "yes" if ours >= paper else "**no**"
            wanted = f"≥ srsf at 16 bit: {_percent(paper)}"
            body.append((results.bed.name, "hankel 2 bit", wanted, _percent(ours), reached))
    return _table(("bed", "method", "wanted", "found", "reached"), body)


def coverage(all_results: Sequence[Results], missing_beds: Sequence[str]) -> str:
    """What ran, with how many seeds, and what did not."""
    parts: dict[str, Callable[[], list[Method]]] = {
        "baselines": catalogue.baselines,
        "banks (the real file)": catalogue.banks,
        "few bits and groups": catalogue.sealed,
        "ablations": catalogue.ablations,
        "more tasks": catalogue.scaling,
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
    text = _table(("bed", *parts), body)
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


INTRODUCTION = """\
# Results

Made by `make bench-quality` (`benchmarks/quality/run.py`) from what it measured; do not edit.

Every model was trained for this, whole, on real data. A method packs all fine-tunes of a bed once
and gives each back; λ, one for all tasks as in the paper, is the best of 0.1, 0.2, ... 1.0 on one
part of the held-out examples, and scores are of the other part. Where a method's own paper tunes
something else (a share, a threshold), that is tuned in λ's place; TIES may go up to 1.6. Where no
λ curve is drawn the search goes down from 1.0 and stops at the first value below the best.

*Normalised* is the mean over tasks of the score divided by the fine-tuned model's. *Bytes* are all
that lies on disk, the base included, in units of the base in float32; *bits a value* is what comes
on top of the base, for all tasks together. `G x b bit` is G groups of b bits each. Random methods
have up to three seeds (42, 43, 44); ± is half the range over them.

Rows at 16 and 8 bits went through `randes_cli.pack` and `Bank.retrieve`, and their bytes are the
size of the bank file. Rows at 4 bits and below, groups, ablations and the fuller banks are
computed in memory with the same signs, shuffles and units: Lloyd–Max levels for Gaussian values,
scales by row and column in half precision (`benchmarks/quality/codec.py`); the same codec cuts the
*own delta* baselines. TIES, DARE, TALL-masks, EMR and BitDelta are short implementations of their
papers' formulas on all tensors (`benchmarks/quality/methods.py`); BitDelta is without its
distillation of scales.
"""


def write(beds: Mapping[str, Callable[[], Bed]]) -> Path:
    """Write docs/results.md and its pictures from the cells that there are."""
    from beds import CACHE

    ran = [n for n in beds if list((CACHE / "cells" / n).glob("fine-tuned@*.json"))]
    all_results = [Results(beds[name]()) for name in ran]
    by_name = {results.bed.name: results for results in all_results}
    missing = [name for name in beds if name not in ran]
    notes = Path(__file__).with_name("findings.md").read_text("utf-8")
    sections = [
        INTRODUCTION,
        f"## What was found\n\n{notes}",
        f"## What issue 6 wanted\n\n{goals(by_name)}\n",
        f"## Which transform\n\n{transforms(all_results)}\n",
        f"## At equal bytes\n\n{equal_bytes(all_results)}\n",
        f"## Bytes for a quality\n\n{bytes_for_quality(all_results)}\n",
    ]
    for results in all_results:
        story = results.bed.story
        sections += [
            f"## {results.bed.title}\n\n{story}\n\n{main_table(results)}\n",
            f"{size_picture(results)}\n\n{curve_picture(results)}\n",
            f"### By task\n\n{task_table(results)}\n",
            scaling(results),
        ]
    sections += [
        f"## Ablations\n\nIn float32, seed by seed as above.\n\n{ablation_tables(all_results)}",
        f"## Cosine against accuracy\n\n{cosine_picture(all_results)}",
        f"## Deltas within and across models\n\n{similarity_picture(all_results)}",
        f"## What ran\n\n{coverage(all_results, missing)}\n",
    ]
    write_csv(all_results)
    path = DOCS / "results.md"
    path.write_text("\n".join(section for section in sections if section), "utf-8")
    return path
