"""The comparison of methods: tables and pictures of one bed, and across beds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import catalogue
import plots
from results import PICTURES, Results, Row, percent, picture, table, with_spread

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


def main_table(results: Results) -> str:
    """The comparison of methods (paper, Tables 1, 2, 5 and 6)."""
    rows = results.of([*catalogue.baselines(), *catalogue.banks()])
    return table(
        ("method", "normalised", "accuracy", "bytes / base", "bits a value", "knob", "seeds"),
        (
            (
                row.name,
                with_spread(row),
                f"{row.absolute:.4f}",
                f"{row.size:.3f}",
                f"{row.bits:.1f}",
                row.knobs,
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
        return table(head, body)
    body = [(row.name, *(f"{row.score(task):.3f}" for task in tasks)) for row in rows]
    return table(("method", *tasks), body)


def size_picture(results: Results) -> str:
    """Accuracy against bytes."""
    families: dict[str, dict[str, tuple[float, float]]] = {}
    for row in results.of([*catalogue.baselines(), *catalogue.banks()]):
        if row.name not in ("base", "fine-tuned"):
            family = families.setdefault(row.cells[0].family, {})
            family[row.name] = (row.size, row.normalised)
    path = PICTURES / f"{results.bed.name}-bytes.svg"
    plots.cloud(path, families, "bytes on disk / base in float32", "normalised accuracy")
    return picture(path, "Accuracy against bytes")


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
    return picture(path, "Accuracy against λ")


def _best(rows: Iterable[Row], bits: float) -> Row | None:
    """The best row of at most so many bits a value (a third more for scales and records)."""
    fitting = [row for row in rows if row.bits <= 1.35 * bits]
    return max(fitting, key=lambda row: row.normalised, default=None)


def equal_bytes(all_results: Sequence[Results]) -> str:
    """At each budget: the best superposition, and the best that keeps each model by itself."""
    body = []
    for results in all_results:
        randes = results.of(catalogue.banks())
        others = results.of(catalogue.baselines())
        own = [row for row in others if row.cells[0].family == catalogue.OWN]
        for bits in (1, 2, 4, 8, 16, 32):
            cells = []
            for rows in (randes, own):
                best, none = _best(rows, bits), "nothing fits" if rows else "not run"
                cells.append(f"{with_spread(best)} ({best.name})" if best else none)
            body.append((results.bed.title, str(bits), *cells))
    head = ("bed", "bits a value, all tasks together", "best superposition", "best of own deltas")
    return table(head, body)


def bytes_for_quality(all_results: Sequence[Results]) -> str:
    """The smallest file by which each family reaches a quality."""
    families = (catalogue.RANDES, catalogue.OWN, catalogue.COMPRESSION)
    body = []
    for results in all_results:
        known = [*catalogue.baselines(), *catalogue.banks()]
        rows = [row for row in results.of(known) if row.name != "fine-tuned"]
        for wanted in (0.95, 0.98, 0.99, 0.995):
            cells = []
            for family in families:
                members = [row for row in rows if row.cells[0].family == family]
                fitting = [row for row in members if row.normalised >= wanted]
                best = min(fitting, key=lambda row: row.size, default=None)
                none = "not reached" if members else "not run"
                cells.append(f"{best.size:.3f} × ({best.name})" if best else none)
            body.append((results.bed.title, f"{100 * wanted:g} %", *cells))
    return table(("bed", "normalised", "superposition", "own deltas", "masks"), body)


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
                        f"**{percent(found[p])}**" if p == best else percent(found[p])
                        for p in PRESETS
                    ),
                )
            )
    return table(("bed", "width", *PRESETS), body)


def default_table(all_results: Sequence[Results]) -> str:
    """What a bank's own λ costs against the best one."""
    body = []
    for results in all_results:
        for name, row in results.rows.items():
            tuned = results.rows.get(name.removeprefix("default λ "))
            if not name.startswith("default λ ") or tuned is None:
                continue
            seeds = {cell.seed for cell in row.cells} & {cell.seed for cell in tuned.cells}
            untuned, best = row.of_seeds(seeds), tuned.of_seeds(seeds)
            body.append(
                (
                    results.bed.title,
                    tuned.name,
                    untuned.knobs,
                    percent(untuned.normalised),
                    best.knobs,
                    percent(best.normalised),
                    f"{100 * (untuned.normalised - best.normalised):+.1f}",
                )
            )
    head = ("bed", "bank", "default λ", "with it", "best λ", "with that", "points")
    return table(head, body) if body else "Not run."


@dataclass(frozen=True)
class Goal:
    """One line of what was aimed for."""

    bed: str
    method: str
    accuracy: float
    size: float | None = None


GOALS = (
    Goal("encoder", "hankel 2 bit", 0.995, 1.07),
    Goal("encoder", "scaling hankel 2 T=96", 0.985),
    Goal("encoder-near", "hankel 2 bit", 0.995, 1.07),
    Goal("encoder-near", "scaling hankel 2 T=96", 0.985),
    Goal("decoder", "hankel 2 bit", 0.965),
    Goal("decoder", "hankel 8 bit", 0.99, 1.25),
    Goal("decoder", "hankel 2 x 4 bit", 0.99, 1.25),
    Goal("decoder", "hankel 3 x 2 bit", 0.99, 1.25),
)


def goals(by_name: Mapping[str, Results]) -> str:
    """Reached or not."""
    body = []
    for goal in GOALS:
        results = by_name.get(goal.bed)
        row = results.rows.get(goal.method) if results else None
        wanted = f"≥ {percent(goal.accuracy)}" + (f" at ≤ {goal.size:.2f} ×" if goal.size else "")
        if row is None:
            body.append((goal.bed, goal.method, wanted, "not run", ""))
            continue
        kept = goal.size is None or row.size <= goal.size + 0.005
        reached = "yes" if row.normalised >= goal.accuracy and kept else "**no**"
        found = f"{with_spread(row)} at {row.size:.3f} ×"
        body.append((goal.bed, goal.method, wanted, found, reached))
    for results in by_name.values():
        ours, paper = results.value("hankel 2 bit"), results.value("srsf 16 bit")
        if ours is not None and paper is not None:
            reached = "yes" if ours >= paper else "**no**"
            wanted = f"≥ srsf at 16 bit: {percent(paper)}"
            body.append((results.bed.name, "hankel 2 bit", wanted, percent(ours), reached))
    return table(("bed", "method", "wanted", "found", "reached"), body)
