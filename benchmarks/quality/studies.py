"""More tasks, ablations and cosines: what the paper studies beside its tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import catalogue
import plots
from analysis import similarities
from results import PICTURES, Results, percent, picture, table


def scaling(results: Results) -> str:
    """Fuller and fuller banks."""
    rows = results.of(catalogue.scaling())
    if not rows:
        return ""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        label, _, count = row.name.removeprefix("scaling ").partition(" T=")
        series.setdefault(f"{label} bit", []).append((float(count), row.normalised))
    counts = sorted({int(count) for points in series.values() for count, _ in points})
    shown = table(
        ("tasks in the bank", *map(str, counts)),
        (
            (
                label,
                *(percent(dict(points).get(float(count))) for count in counts),
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
    drawn = picture(path, "Accuracy against tasks")
    return f"### More tasks\n\n{story}\n\n{shown}\n\n{drawn}\n\n{_crossing(results, counts)}\n"


def _crossing(results: Results, counts: Sequence[int]) -> str:
    """From how many tasks on one superposition is smaller than own deltas, and what it costs."""
    own = [f"own delta {bits} bit" for bits in (1, 2)]
    if any(name not in results.rows for name in ("hankel 2 bit", *own)):
        return ""
    body = []
    for count in counts:
        one = results.rows.get(f"scaling hankel 2 T={count}")
        found = f"{one.bits:.1f}: {percent(one.normalised)}" if one else "not run"
        row = [str(count), found]
        for name in own:
            each = results.rows[name].bits / len(results.bed.tasks)
            row.append(f"{count * each:.1f}: {percent(results.value(name))}")
        body.append(row)
    story = (
        "Bits a value and normalised accuracy of one hankel superposition at 2 bits, and of own "
        "deltas, whose quality does not depend on how many they are but whose bytes do:"
    )
    return f"{story}\n\n{table(('tasks', 'hankel 2 bit', *own), body)}"


def ablation_tables(all_results: Sequence[Results]) -> str:
    """The paper's Figures 5 and 6 as one table over the beds."""
    wanted = [method.name for method in catalogue.ablations()]
    shown = [results for results in all_results if any(name in results.rows for name in wanted)]
    if not shown:
        return "Not run.\n"
    body = [
        (name.removeprefix("ablation "), *(percent(results.value(name)) for results in shown))
        for name in wanted
    ]
    text = table(("setting", *(results.bed.title for results in shown)), body) + "\n"
    for results in shown:
        values = {
            name.removeprefix("ablation "): results.rows[name].normalised
            for name in wanted
            if name in results.rows
        }
        path = PICTURES / f"{results.bed.name}-ablations.svg"
        plots.bars(path, values, "normalised accuracy")
        text += f"\n{picture(path, f'Ablations, {results.bed.title}')}\n"
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
    return picture(path, "Cosine against accuracy") + "\n"


def similarity_picture(all_results: Sequence[Results]) -> str:
    """Cosines within and across models (paper, Figure 2)."""
    found = {results.bed.title: similarities(results.bed) for results in all_results}
    path = PICTURES / "similarities.svg"
    plots.histograms(path, found)
    shown = table(
        ("bed", "within a model: mean, largest", "across models: mean, largest"),
        (
            (title, *(f"{mean(v):.3f}, {max(v):.3f}" for v in (s["within"], s["across"])))
            for title, s in found.items()
        ),
    )
    return f"{shown}\n\n{picture(path, 'Cosines within and across models')}\n"
