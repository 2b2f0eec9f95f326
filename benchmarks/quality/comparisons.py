"""The tables of the report, each made from cells alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import catalogue
import fit_lambda
import kinds
import numpy as np
import plots
import prototypes
from results import PICTURES, Results, Row, percent, picture, table, with_spread

from randes_cli.core.prediction.cosines import default_coefficient
from randes_cli.core.prediction.quality import FAMILIES, family_kept
from randes_cli.core.prediction.quality import Noise as Told


def short_name(row: Row) -> str:
    """As tables call a bank of the default transform at the λ it is told."""
    return row.name.removesuffix(", λ as told").removeprefix("two-sided ")


def _predicted(bed: str, row: Row) -> str:
    """What the bed's own family is predicted to keep, from the noise that the bank recorded."""
    if bed not in FAMILIES:
        return ""
    noise = row.cells[0].facts["noise"]
    parts = {key: np.array(noise[key][: len(row.cells[0].scores)]) for key in noise}
    told = Told(**parts)
    return percent(float(family_kept(FAMILIES[bed], told, told.told).mean()))


def told_table(results: Results, tasks: int | None = None) -> str:
    """Bits × groups × shares at the λ that a bank has untuned."""
    head = (
        *("groups x bits on a share", "bits in all", "bytes / base", "accuracy kept", "gain kept"),
        *("gain predicted", "λ", "seeds"),
    )
    return table(
        head,
        (
            (
                short_name(row),
                f"{row.in_all:.3g}",
                f"{row.size:.3f}",
                *with_spread(row),
                _predicted(results.bed.name, row),
                row.knobs,
                str(len(row.cells)),
            )
            for row in results.told(tasks)
        ),
    )


def live_table(all_results: Sequence[Results]) -> str:
    """Live banks of 16 and of 8 bits, of models in bfloat16."""
    body = []
    for results in all_results:
        rows = {row.name: row for row in results.of(catalogue.live())}
        for name, wide in rows.items():
            narrow = rows.get(name.replace(" 16 bit", " 8 bit"))
            if " 16 bit" not in name or narrow is None:
                continue
            kept = [with_spread(row)[1] for row in (wide, narrow)]
            sizes = [f"{2 * row.size:.2f} ×" for row in (wide, narrow)]
            count = str(wide.cells[0].facts["tasks"])
            seeds = str(min(len(row.cells) for row in (wide, narrow)))
            body.append((results.bed.title, name.split()[0], count, *kept, *sizes, seeds))
    head = ("bed", "signs", "tasks", "gain kept at 16 bits", "at 8 bits")
    more = ("bytes / base at 16 bits", "at 8 bits", "seeds")
    return table((*head, *more), body) if body else "Not run.\n"


def prototypes_table(all_results: Sequence[Results]) -> str:
    """What was tried and is not in the product, a column for each bed."""
    beds = [one for one in all_results if one.of(prototypes.rows(len(one.bed.tasks)))]
    body = []
    for idea in prototypes.IDEAS:
        found = [one.rows.get(f"prototype {idea.name}") for one in beds]
        shown = ["" if row is None else with_spread(row)[1] for row in found]
        body.append((idea.name, *shown))
    return table(("what", *(one.bed.title for one in beds)), body) if beds else "Not run.\n"


def others_table(results: Results) -> str:
    """All that is not randes, at its best knob."""
    head = ("method", "bytes / base", "accuracy kept", "gain kept", "knob", "seconds", "seeds")
    return table(
        head,
        (
            (
                row.name,
                f"{row.size:.3f}",
                *with_spread(row),
                row.knobs,
                f"{row.seconds:.0f}",
                str(len(row.cells)),
            )
            for row in sorted(results.of(catalogue.baselines()), key=lambda row: row.size)
        ),
    )


def size_picture(results: Results) -> str:
    """The gain that is kept against bytes."""
    families: dict[str, dict[str, tuple[float, float]]] = {}
    for row in [*results.of(catalogue.baselines()), *results.told()]:
        if row.name not in ("base", "fine-tuned") and row.gain > 0:
            family = families.setdefault(row.cells[0].family, {})
            family[short_name(row)] = (row.size, row.gain)
    path = PICTURES / f"{results.bed.name}-bytes.svg"
    plots.cloud(path, families, "bytes on disk / base in float32", "share of the gain kept")
    return picture(path, "Gain against bytes")


def kinds_table(all_results: Sequence[Results]) -> str:
    """What each type of tensor costs by itself."""
    body = []
    for results in all_results:
        found = results.of(kinds.rows())
        whole = sum(max(0.0, 1 - row.gain) for row in found)
        for row in found:
            share = row.size - 1
            lost = max(0.0, 1 - row.gain)
            of_all = percent(lost / whole) if whole else ""
            body.append(
                (
                    results.bed.title,
                    row.name.removeprefix("only "),
                    percent(share),
                    percent(row.gain),
                    of_all,
                )
            )
    head = ("bed", "type", "of the elements", "gain kept", "of what all types lose")
    return table(head, body) if body else "Not run.\n"


def rules_table() -> str:
    """What rules for λ give away of the gain, beside the best λ of each bank."""
    every = fit_lambda.read()
    sets = (every, fit_lambda.worth_having(every))
    rules: dict[str, fit_lambda.Rule] = {"1": lambda _: 1.0, "8 cos": default_coefficient}
    body = [
        (f"λ = {name}", *(cell for one in sets for cell in (_lost(fit_lambda.cost(one, rule)), "")))
        for name, rule in rules.items()
    ]
    for words, exponent in fit_lambda.EXPONENTS.items():
        cells = []
        for one in sets:
            up_to, apart = fit_lambda.fit(one, exponent), fit_lambda.held_out(one, exponent)
            lost = _lost(fit_lambda.cost(one, fit_lambda.rule(up_to, exponent)))
            cells += [f"{lost} (n = {up_to})", _lost(mean(apart.values()))]
        body.append((f"min(1, (n cos²)^{words})", *cells))
    head = ("rule", "all banks", "families held out", "banks that keep half", "families held out")
    return table(head, body)


def _lost(share: float) -> str:
    return f"{100 * share:.2f} %"
