"""Hold the default λ against curves that were measured, and rules that are fitted to these.

    python benchmarks/quality/fit_lambda.py [--gather]

reads `docs/results/lambda.json` (with `--gather` made anew from the cells in the cache), fits n of
rules

    λ = min(1, (n cos²)^p)

to banks that keep half of their gain at some λ, cos being the predicted cosine of a task (1/cos² is
the number of like tasks in its group), and prints what each gives away beside the best λ of each
bank, also in families that it was not fitted to. The product's rule is that of p = ½, a multiple of
the cosine; its n is `MOST_NOISE` of `src/randes_cli/core/prediction/cosines.py`, which this writes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from randes_cli.core.prediction import cosines as stats

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "docs" / "results" / "lambda.json"
PRODUCT = Path(stats.__file__)

Rule = Callable[[float], float]

#: n that are tried: eight like tasks are to come back at 1.
UP_TO = (8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64, 72, 80, 96)
#: p that are tried.
EXPONENTS = {"1/16": 1 / 16, "1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2}
TAKEN = 1 / 2
#: The share of the gain that a bank must keep at its best λ: what keeps less is not worth having
#: (a part of the crowds of the hard decoders, which only more groups help), and would decide.
LEAST = 0.5
#: What a GPU measured of the decoder of 85M parameters with eight tasks: gain kept by λ.
_LARGE = {1.0: 0.982, 0.8: 0.962, 0.6: 0.88}


@dataclass(frozen=True)
class Curve:
    """One bank at several λ.

    Attributes:
        cosines: of its tasks, as they are predicted.
        kept: share of the gain by λ, mean over the tasks, on a validation part.
    """

    family: str
    bank: str
    cosines: Sequence[float]
    kept: dict[float, float]

    def at(self, told: float) -> float:
        """What is kept at a λ: between those that were tried, and on in a line below the least.

        A model that is worse than its base keeps nothing.
        """
        tried = sorted(self.kept)
        values = [self.kept[value] for value in tried]
        if told < tried[0]:
            slope = (values[1] - values[0]) / (tried[1] - tried[0])
            return max(0.0, values[0] - max(0.0, slope) * (tried[0] - told))
        return max(0.0, float(np.interp(told, tried, values)))

    def cost(self, told: Rule) -> float:
        """The share of the gain that a rule gives away, beside the best λ that was tried."""
        chosen = mean(told(cosine) for cosine in self.cosines)
        return max(0.0, *self.kept.values()) - self.at(chosen)


def rule(up_to: float, exponent: float) -> Rule:
    """λ = min(1, (n cos²) ^ exponent)."""
    return lambda cosine: min(1.0, (up_to * max(0.0, cosine) ** 2) ** exponent)


def cost(curves: Sequence[Curve], told: Rule) -> float:
    """What a rule gives away, mean over the banks of a family, then over families."""
    families = dict.fromkeys(curve.family for curve in curves)
    return mean(mean(one.cost(told) for one in curves if one.family == f) for f in families)


def fit(curves: Sequence[Curve], exponent: float) -> int:
    """The n of the least cost."""
    return min(UP_TO, key=lambda up_to: cost(curves, rule(up_to, exponent)))


def held_out(curves: Sequence[Curve], exponent: float) -> dict[str, float]:
    """By family what the rule that all other families give costs it."""
    made = {}
    for family in dict.fromkeys(curve.family for curve in curves):
        found = fit([curve for curve in curves if curve.family != family], exponent)
        own = [curve for curve in curves if curve.family == family]
        made[family] = cost(own, rule(found, exponent))
    return made


def read() -> list[Curve]:
    """The measured curves of the repository."""
    rows = json.loads(MEASURED.read_text("utf-8"))
    for row in rows:
        row["kept"] = {float(value): kept for value, kept in row["kept"].items()}
    return [Curve(**row) for row in rows]


def worth_having(curves: Sequence[Curve]) -> list[Curve]:
    """Those of banks that keep enough of the gain at some λ."""
    return [curve for curve in curves if max(curve.kept.values()) >= LEAST]


def gathered() -> list[Curve]:
    """The curves in the cells of the cache."""
    from beds import VALIDATION, load
    from measure import read_cells
    from run import beds

    made = []
    for name, build in beds().items():
        cells = [cell for cell in read_cells(name) if cell.method.startswith("λ of ")]
        if not cells:
            continue
        bed = build()
        base = load(bed.base)
        floor = mean(bed.evaluate(base, task, VALIDATION) for task in bed.tasks)
        whole = mean(bed.evaluate(load(at), task, VALIDATION) for task, at in bed.tasks.items())
        for method in dict.fromkeys(cell.method for cell in cells):
            seeds = [cell for cell in cells if cell.method == method]
            scores = {v: mean(cell.curve[v] for cell in seeds) for v in seeds[0].curve}
            kept = {float(v): (s - floor) / (whole - floor) for v, s in scores.items()}
            cosines = _cosines(seeds[0].facts["noise"])
            bank = method.removeprefix("λ of two-sided ")
            made.append(Curve(name, bank, cosines, {v: round(s, 4) for v, s in kept.items()}))
    return [*made, Curve("decoder, 85M", "16 bit", (8**-0.5,), _LARGE)]


def _cosines(noise: dict[str, list[float]]) -> list[float]:
    others, dropped, rounding, along = (
        np.array(noise[part]) for part in ("others", "dropped", "rounding", "along")
    )
    energy = along**2 + others + dropped + rounding - (1 - along) ** 2
    return [round(float(value), 4) for value in along / np.sqrt(energy)]


def main() -> None:
    """Fit, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gather", action="store_true", help="take the cells of the cache")
    if parser.parse_args().gather:
        lines = ",\n".join(json.dumps(asdict(one), ensure_ascii=False) for one in gathered())
        MEASURED.write_text(f"[\n{lines}\n]\n", "utf-8")
    curves = read()
    for curve in curves:
        best = max(curve.kept, key=lambda value: curve.kept[value])
        lost = (
            f"λ = 1 costs {curve.cost(lambda _: 1.0):.3f}, 8 cos {curve.cost(rule(64, TAKEN)):.3f}"
        )
        cosine = f"cos {mean(curve.cosines):.3f}"
        print(f"{curve.family:16} {curve.bank:24} {cosine}  best {best:g}  {lost}")
    for name, one in (("all", curves), ("worth having", worth_having(curves))):
        plain, here = cost(one, lambda _: 1.0), cost(one, rule(64, TAKEN))
        print(f"{name}: λ = 1 costs {plain:.4f}, 8 cos {here:.4f}")
        for words, exponent in EXPONENTS.items():
            up_to, apart = fit(one, exponent), held_out(one, exponent)
            costs = "  ".join(f"{family} {lost:.4f}" for family, lost in apart.items())
            whole, held = cost(one, rule(up_to, exponent)), mean(apart.values())
            print(f"({up_to} cos²)^{words:5} costs {whole:.4f}, held out {held:.4f}: {costs}")
    found = fit(worth_having(curves), TAKEN)
    text = PRODUCT.read_text("utf-8")
    PRODUCT.write_text(re.sub(r"MOST_NOISE = .*", f"MOST_NOISE = {found:.1f}", text), "utf-8")


if __name__ == "__main__":
    main()
