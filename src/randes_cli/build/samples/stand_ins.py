"""Dry runs of large banks: of tensors of one kind some are sampled, which stand for the others.

Packing looks at every tensor. A prediction need not: 100 models of 70B parameters have 72,300
deltas to sample, and 20 of 90,000 tensors have 1.8 million.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from randes_cli.build.inputs.participants import Participant
from randes_cli.core.arrays import Array
from randes_cli.core.shuffle import layer_type
from randes_cli.plan import STEP_SAMPLE, Unit
from randes_cli.stats.stored import Cells

#: Elements of all deltas that a dry run samples, about; of one kind never fewer than so many units.
_MOST, _LEAST = 2**29, 3


def stand_ins(units: Sequence[Unit], tasks: Sequence[Participant]) -> dict[Unit, Unit]:
    """The unit whose sample stands for another's, of the units that are not sampled.

    They are of one layer type, one shape, and in the same tasks; the nearest that is sampled
    stands for each. Empty where all can be sampled.
    """
    cost = sum(unit.layers * min(unit.rows * unit.cols, STEP_SAMPLE[0]) for unit in units)
    share = _MOST / max(1, cost * len(tasks))
    if share >= 1:
        return {}
    alike_in = {id(one.fit.superposed): one for one in tasks}  # fine-tunes have one table as a rule
    kinds: dict[object, list[Unit]] = {}
    for unit in units:
        who = tuple(number for number, one in alike_in.items() if one.meets(unit))
        shape = unit.rows, unit.cols, unit.view, unit.layers
        kinds.setdefault((layer_type(unit.names[0]), shape, unit.signs, who), []).append(unit)
    made = {}
    for alike in kinds.values():
        count = min(len(alike), max(_LEAST, round(share * len(alike))))
        chosen = [(2 * n + 1) * len(alike) // (2 * count) for n in range(count)]
        for place, unit in enumerate(alike):
            nearest = alike[chosen[place * count // len(alike)]]
            if nearest is not unit:
                made[unit] = nearest
    return made


def followers(stands: Mapping[Unit, Unit]) -> dict[Unit, list[Unit]]:
    made: dict[Unit, list[Unit]] = {}
    for unit, other in stands.items():
        made.setdefault(other, []).append(unit)
    return made


def joined_cells(cells: Cells, stands: Mapping[Unit, Unit]) -> Cells:
    """Cells of single tensors, those of what is not sampled joined to their stand-ins'.

    What is predicted is the same, for such a cell is the stand-in's Gram matrix several times.
    """
    if any(len(names) > 1 for _, names in cells):
        return cells
    pairs = (zip(unit.names, other.names, strict=True) for unit, other in stands.items())
    first = dict(chain.from_iterable(pairs))
    made: dict[str, list[str]] = {}
    for _, (name,) in cells:
        made.setdefault(first.get(name, name), []).append(name)
    return [(name, tuple(names)) for name, names in made.items()]


def fill_rows(values: Array, place: Mapping[str, int], stands: Mapping[Unit, Unit]) -> None:
    """Give the rows (last axis but one) of units that were not sampled those of their stand-ins."""
    pairs = [
        (place[mine], place[theirs])
        for unit, other in stands.items()
        for mine, theirs in zip(unit.names, other.names, strict=True)
    ]
    if pairs:
        mine, theirs = map(list, zip(*pairs, strict=True))
        values[..., mine, :] = values[..., theirs, :]


def stand_in_note(stands: Mapping[Unit, Unit], units: Sequence[Unit]) -> list[str]:
    if not stands:
        return []
    names = sum(unit.layers for unit in units)
    looked = names - sum(unit.layers for unit in stands)
    return [
        f"{looked:,} of {names:,} tensors were sampled: each of the others is supposed to be like "
        "the nearest of its type"
    ]
