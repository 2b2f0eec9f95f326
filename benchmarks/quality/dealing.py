"""What it would be worth to choose whom each task shares its group with.

    python benchmarks/quality/dealing.py [--bed NAME ...] [--measure]

packs the tasks of a bed, and of every way to deal them to groups of one size predicts the share of
the gain that is kept (the bed's own family), beside dealing them in turn, as the product does. With
`--measure` both are packed and scored: the way that is predicted best for the task that keeps
least.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from beds import CACHE, TEST, Bed, load
from catalogue import SEEDS
from methods import Models
from run import beds

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, pack
from randes_cli.core.prediction.cut import Cut
from randes_cli.core.prediction.lengths import Lengths
from randes_cli.core.prediction.quality import FAMILIES, family_kept, noise_of
from randes_cli.files.bank.file import BankFile
from randes_cli.plan import seal_matrix, sealable, superposable
from randes_cli.stats.lengths import bank_lengths, stored_lengths

BITS, GROUPS = 2, (2, 4)


def lengths_of(bed: Bed) -> tuple[Lengths, Cut]:
    """The tasks' lengths by tensor, and what cutting makes of a sum."""
    with TemporaryDirectory(dir=CACHE) as folder:
        path = Path(folder) / "bank.randes"
        inputs = [TaskInput(name, str(at)) for name, at in bed.tasks.items()]
        pack(str(bed.base), inputs, path, PackOptions(), RunOptions(threads=1))
        file = BankFile(path)
        lengths = bank_lengths(file.manifest, stored_lengths(file))
        rows = [one for one in file.manifest.base.tensors.values() if superposable(one)]
        file.close()
    sides = [float(min(seal_matrix(one))) if sealable(one) else 0.0 for one in rows]
    return lengths, Cut.supposed(np.ones(len(rows)), BITS, np.array(sides))


def ways(tasks: Sequence[int], size: int) -> Iterator[list[tuple[int, ...]]]:
    """Every way to deal tasks to groups of one size (the last one of the rest)."""
    if len(tasks) <= size:
        yield [tuple(tasks)]
        return
    first, rest = tasks[0], tasks[1:]
    for mates in combinations(rest, size - 1):
        left = [task for task in rest if task not in mates]
        for others in ways(left, size):
            yield [(first, *mates), *others]


def _group(dealt: Sequence[Sequence[int]], task: int) -> int:
    return next(group for group, members in enumerate(dealt) if task in members)


def kept(
    bed: str, lengths: Lengths, cut: Cut, dealt: Sequence[Sequence[int]]
) -> tuple[float, float]:
    """The share of the gain that is predicted: on average, and of the task that keeps least."""
    groups = [_group(dealt, task) for task in range(len(lengths.groups))]
    noise = noise_of(replace(lengths, groups=groups, cuts=dict.fromkeys(groups, cut)))
    found = family_kept(FAMILIES[bed], noise, noise.told)
    return float(found.mean()), float(found.min())


def measured(bed: Bed, dealt: Sequence[Sequence[int]], seed: int) -> tuple[float, float]:
    """The same as scores have it."""
    models, found = Models(bed), []
    with TemporaryDirectory(dir=CACHE) as folder:
        path = Path(folder) / "bank.randes"
        inputs = [
            TaskInput(name, str(at), group=_group(dealt, task))
            for task, (name, at) in enumerate(bed.tasks.items())
        ]
        options = PackOptions(bits=BITS, groups=len(dealt), seed=seed)
        pack(str(bed.base), inputs, path, options, RunOptions(threads=1))
        bank = Bank.open(path, run=RunOptions(threads=1))
    for name, at in bed.tasks.items():
        states = (models.base, load(at), bank.retrieve(name))
        floor, whole, here = (bed.evaluate(state, name, TEST) for state in states)
        found.append((here - floor, whole - floor))
    gains, wholes = np.array(found).T
    return float(gains.sum() / wholes.sum()), float((gains / wholes).min())


def main() -> None:
    """Print a line for each bed and number of groups."""
    known, usual = beds(), ["digits", "digits-conv", "decoder"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bed", nargs="+", choices=known, default=usual)
    parser.add_argument("--measure", action="store_true", help="pack and score both")
    options = parser.parse_args()
    for name in options.bed:
        bed = known[name]()
        lengths, cut = lengths_of(bed)
        count = len(lengths.groups)
        for number in GROUPS:
            turn = [tuple(range(group, count, number)) for group in range(number)]
            made = list(ways(range(count), -(-count // number)))
            found = [kept(name, lengths, cut, way) for way in made]
            most = [max(values) for values in zip(*found, strict=True)]
            best = made[max(range(len(made)), key=lambda way: found[way][1])]
            _print(
                f"{name}: {number} x {BITS} bit, predicted in turn", kept(name, lengths, cut, turn)
            )
            _print(f"  the best of {len(made)} ways, each by itself", most)
            if options.measure:
                for seed in SEEDS:
                    _print(f"  seed {seed}, measured in turn", measured(bed, turn, seed))
                    _print(f"  seed {seed}, measured as {best}", measured(bed, best, seed))


def _print(words: str, shares: Sequence[float]) -> None:
    print(f"{words}: {shares[0]:.2%} of the gain, {shares[1]:.2%} of the least task's", flush=True)


if __name__ == "__main__":
    main()
