"""Fit the prediction of quality to what was measured, and write it into the product.

    python benchmarks/quality/fit.py [--gather]

reads `docs/results/quality.json` (with `--gather` made anew from the cells in the cache and from
`earlier.csv`), fits, prints measured beside predicted, and writes the coefficients into
`src/randes_cli/core/prediction/quality.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import gcd
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.levels import DISTORTION
from randes_cli.core.prediction import quality
from randes_cli.core.prediction.quality import Family, Noise

if TYPE_CHECKING:
    from measure import Cell

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "docs" / "results" / "quality.json"
EARLIER = Path(__file__).with_name("earlier.csv")
PRODUCT = Path(quality.__file__)
F64 = NDArray[np.float64]

#: What a model that fits to a digit is still off by, as a share of what was lost.
_MODEL_ERROR = 0.15
#: The error of a score of one seed, and the least that is believed of several.
_ONE_SEED, _LEAST = 0.005, 0.002
#: Noise beyond which the best λ keeps a good deal more than 1: what was tuned tells nothing there.
_TUNED_BEYOND = 16
#: How much more a prediction counts that is too good than one that is too bad.
_FLATTERED = 2.0
#: How much more of the elements than its m says a share may have.
_MOST_DENSE = 1.6
#: How far families lie apart, in logarithms: κ over three orders of magnitude, ω by a factor.
_PRIOR = (2.0, 1.0)


@dataclass(frozen=True)
class Point:
    """One choice on one bed: its noise, in energies of a task's delta, and what was kept.

    Attributes:
        kept: below 0 where the model was worse than its base.
        spread: of `kept`, for the number of examples and seeds that it was measured with.
        source: where the figure is from.
        coefficient: λ, mean over the tasks.
    """

    family: str
    source: str
    tasks: int
    groups: int
    bits: int
    share: int
    others: float
    dropped: float
    rounding: float
    following: float
    kept: float
    spread: float
    coefficient: float

    @property
    def noise(self) -> Noise:
        parts = (self.others, self.dropped, self.rounding, self.following, 1.0)
        return Noise(*(np.array([part]) for part in parts))


def nominal(tasks: int, groups: int, bits: int, share: int) -> dict[str, float]:
    """The noise of a bank of deltas of one length, dealt evenly."""
    each, lost = tasks / groups, DISTORTION[bits] if bits < 16 else 0.0
    cut = share * lost / (1 - lost)
    return {
        "others": share * (each - 1),
        "dropped": share - 1.0,
        "rounding": cut * each,
        "following": (cut / share / each**2) ** 2,
    }


def earlier() -> list[Point]:
    """Figures of which no bank is at hand, with the noise that such banks have, at λ = 1.

    Those at the best λ are left out where there is so much noise that another one is better.
    """
    made = []
    for row in csv.DictReader(EARLIER.open(encoding="utf-8")):
        names = ("tasks", "groups", "bits", "share")
        sizes = dict(zip(names, (int(row[key]) for key in names), strict=True))
        noise = nominal(**sizes)
        if row["tuned"] == "yes" and noise["others"] + noise["rounding"] > _TUNED_BEYOND:
            continue
        measured = {key: float(row[key]) for key in ("kept", "spread")}
        figures = {**sizes, **noise, **measured, "coefficient": 1.0}
        made.append(Point(row["family"], row["source"], **figures))  # type: ignore[arg-type]
    return made


def gathered() -> list[Point]:
    """What the cells of the cache say of banks at their own λ, however little they kept.

    Not of shares that most matrices are too small for, which are dense in the end.
    """
    from measure import read_cells
    from results import stored_shares
    from run import beds

    made = []
    for bed, made_bed in beds().items():
        cells = read_cells(bed)
        known = {cell.method: cell for cell in cells}
        if "base" not in known or "fine-tuned" not in known:
            continue
        floor, gain = known["base"].mean, known["fine-tuned"].mean - known["base"].mean
        told = [cell for cell in cells if _in_float32(cell)]
        stored = stored_shares(made_bed())
        for method in dict.fromkeys(cell.method for cell in told):
            seeds = [cell for cell in told if cell.method == method]
            facts, noise = seeds[0].facts, [cell.facts["noise"] for cell in seeds]
            if facts["tasks"] > len(known["base"].scores) and _copies_meet(facts, known["base"]):
                continue
            if stored[facts["share"]] * facts["share"] > _MOST_DENSE:
                continue
            count = len(seeds[0].scores)
            made.append(
                Point(  # type: ignore[call-arg]
                    bed,
                    "make bench-quality",
                    *(facts[key] for key in ("tasks", "groups", "bits", "share")),
                    *(
                        round(mean(value for one in noise for value in one[part][:count]), 5)
                        for part in ("others", "dropped", "rounding", "following")
                    ),
                    round(mean((cell.mean - floor) / gain for cell in seeds), 5),
                    round(_spread([cell.mean for cell in seeds]) / gain, 5),
                    round(mean(cell.knob for cell in seeds), 4),
                )
            )
    return made


def _in_float32(cell: Cell) -> bool:
    """Whether a bank's λ was its own, and it held all of the models as they were trained."""
    told = cell.method.endswith("λ as told")
    return told and not (cell.facts.get("half") or cell.facts.get("ends"))


def _copies_meet(facts: Mapping[str, Any], base: Cell) -> bool:
    """Whether groups hold copies of a task before they hold all: these do not average out."""
    return facts["groups"] > 1 and gcd(facts["groups"], len(base.scores)) > 1


def _spread(scores: Sequence[float]) -> float:
    """The error of a mean over seeds; of a single one what these beds vary by."""
    if len(scores) == 1:
        return _ONE_SEED
    return max(_LEAST, stdev(scores)) / len(scores) ** 0.5


def read() -> list[Point]:
    """The measured points of the repository."""
    return [Point(**row) for row in json.loads(MEASURED.read_text("utf-8"))]


@dataclass(frozen=True)
class Fitted:
    """The coefficients of `core/prediction/quality.py`, rounded as they are written there."""

    power: float
    dropped: float
    worse: float
    families: Mapping[str, Family]

    def kept(self, points: Sequence[Point]) -> list[float]:
        """What these coefficients predict."""
        found = [self.families[point.family] for point in points]
        pairs = np.array([(family.noise, family.following) for family in found]).T
        told: list[float] = _told(points, self.power, self.dropped, self.worse, *pairs).tolist()
        return [max(0.0, value) for value in told]


def _told(
    points: Sequence[Point], power: float, dropped: float, worse: float, noise: F64, following: F64
) -> F64:
    """The formula of `core/prediction/quality.py`, below 0 as well."""
    others, lost, rounding, follows, told = (
        np.array([getattr(point, key) for point in points])
        for key in ("others", "dropped", "rounding", "following", "coefficient")
    )
    whole = (others + dropped * lost + rounding) * told**2
    cost = noise * whole**power + following * follows
    left = 1 + (1 + worse) * np.expm1(-cost / (1 + worse))
    # A shrunken delta keeps less of a gain, and costs no less where there is none.
    kept: F64 = np.where(left > 0, left * told * (2 - told), left)
    return kept


def fit(points: Sequence[Point]) -> Fitted:
    """Least squares over all families, in which outliers count less."""
    from scipy.optimize import least_squares  # type: ignore[import-untyped]

    names = sorted({point.family for point in points})
    of = np.array([names.index(point.family) for point in points])
    kept = np.array([point.kept for point in points])
    spread = np.array([point.spread for point in points])
    sigma = np.sqrt(spread**2 + (_MODEL_ERROR * np.maximum(1 - kept, 0.0)) ** 2)

    def residuals(values: F64) -> F64:
        families = values[3:].reshape(2, -1)
        told = _told(points, *np.exp(values[:3]).tolist(), *np.exp(families)[:, of])
        apart = (families - families.mean(axis=1, keepdims=True)) / np.array(_PRIOR)[:, None]
        off = (told - kept) / sigma
        return np.concatenate([np.where(off > 0, _FLATTERED * off, off), apart.ravel()])

    start = np.log([1.2, 0.4, 1.0, *[0.003] * len(names), *[0.03] * len(names)])
    found = np.exp(least_squares(residuals, start, loss="soft_l1").x)
    pairs = found[3:].reshape(2, -1).T.tolist()
    families = {
        name: Family(*(float(f"{v:.2g}") for v in pair))
        for name, pair in zip(names, pairs, strict=True)
    }
    power, dropped, worse = (round(float(value), 2) for value in found[:3])
    return Fitted(power, dropped, worse, families)


def block(fitted: Fitted) -> str:
    """The coefficients as the product's module has them."""
    rows = "".join(
        f'    "{name}": Family({family.noise!r}, {family.following!r}),\n'
        for name, family in fitted.families.items()
    )
    return (
        "#: q, d and w.\n"
        f"POWER, DROPPED, WORSE = {fitted.power!r}, {fitted.dropped!r}, {fitted.worse!r}\n\n"
        "#: κ and ω by family of models.\n"
        f"FAMILIES: Mapping[str, Family] = {{\n{rows}}}\n"
    )


def main() -> None:
    """Fit, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gather", action="store_true", help="take the cells of the cache, too")
    if parser.parse_args().gather:
        points = [*gathered(), *earlier()]
        lines = ",\n".join(json.dumps(asdict(point), ensure_ascii=False) for point in points)
        MEASURED.write_text(f"[\n{lines}\n]\n", "utf-8")
    points = read()
    fitted = fit(points)
    for point, told in zip(points, fitted.kept(points), strict=True):
        sizes = f"T={point.tasks} {point.groups} x {point.bits} bit on 1/{point.share}"
        shown = f"{point.family:16} {sizes:28} λ {point.coefficient:<6.3g}"
        print(f"{shown} kept {point.kept:.4f} predicted {told:.4f}")
    text = PRODUCT.read_text("utf-8")
    text = re.sub(r"#: q, d and w\..*?\n}\n", lambda _: block(fitted), text, flags=re.DOTALL)
    PRODUCT.write_text(text, "utf-8")
    print(block(fitted))


if __name__ == "__main__":
    main()
