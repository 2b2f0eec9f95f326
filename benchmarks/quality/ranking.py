"""How to tell what families of models predict: by which number choices are ranked best.

    python benchmarks/quality/ranking.py

takes the measured banks of `docs/results/quality.json` and, for each family and number of tasks,
every number of bits in all that a choice of them has: within it the choice that is predicted best
is taken, and what it kept less than the best one there is printed, mean and largest; once as the
product predicts, and once without the family's own coefficients and those of its kin. Beside it,
how far predictions are off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from fit import F64, Point, read

from randes_cli.core.prediction.quality import FAMILIES, Family, family_kept

RULES: Mapping[str, Callable[[F64], float]] = {
    "mean": lambda found: float(found.mean()),
    "middle": lambda found: float(np.median(found)),
    "quarter": lambda found: float(np.quantile(found, 0.25)),
    "least": lambda found: float(found.min()),
}
#: A family and number of tasks with fewer choices tell nothing.
_LEAST = 4


class Choice(NamedTuple):
    """Bits in all, what was kept, and what each family predicts."""

    bits: float
    kept: float
    told: F64


def kin(family: str) -> str:
    return family.split("-", maxsplit=1)[0].split(",", maxsplit=1)[0]


def told(point: Point, families: Sequence[Family]) -> F64:
    noise = point.noise
    return np.array([float(family_kept(one, noise, noise.told)[0]) for one in families])


def families_of(point: Point, *, apart: bool) -> list[Family]:
    """All families, or those that a point's is not kin to."""
    own = kin(point.family)
    return [one for name, one in FAMILIES.items() if not (apart and kin(name) == own)]


def choices(points: Sequence[Point], *, apart: bool) -> list[list[Choice]]:
    """Of each family and number of tasks."""
    sets: dict[tuple[str, int], dict[tuple[int, int, int], list[Point]]] = {}
    for point in points:
        key = point.groups, point.bits, point.share
        sets.setdefault((point.family, point.tasks), {}).setdefault(key, []).append(point)
    made = []
    for found in sets.values():
        one = [
            Choice(
                groups * bits / share,
                float(np.mean([point.kept for point in same])),
                told(same[0], families_of(same[0], apart=apart)),
            )
            for (groups, bits, share), same in found.items()
        ]
        made += [one] if len(one) >= _LEAST else []
    return made


def given_away(found: Sequence[Choice], rule: Callable[[F64], float]) -> list[float]:
    """What the choice that is predicted best kept less than the best, at each number of bits."""
    made = []
    for most in sorted({one.bits for one in found}):
        inside = [one for one in found if one.bits <= most]
        taken = max(inside, key=lambda one: (round(rule(one.told), 4), -one.bits))
        made += [max(one.kept for one in inside) - taken.kept] if len(inside) > 1 else []
    return made


def _off(point: Point, rule: Callable[[F64], float], *, apart: bool) -> float:
    """How much more is predicted than was kept."""
    return rule(told(point, families_of(point, apart=apart))) - max(0.0, point.kept)


def main() -> None:
    """Print what each rule gives away, and how far off it is."""
    points = read()
    for apart in (False, True):
        print("without its kin" if apart else "all families")
        sets = choices(points, apart=apart)
        for name, rule in RULES.items():
            lost = np.array([value for one in sets for value in given_away(one, rule)])
            off = np.array([_off(point, rule, apart=apart) for point in points])
            error = float(np.sqrt((off**2).mean()))
            print(
                f"  {name:8} gives away {lost.mean():.4f} on average, {lost.max():.3f} at the most "
                f"(of {len(lost)}); off by {off.mean():+.3f} on average, rms {error:.3f}"
            )


if __name__ == "__main__":
    main()
