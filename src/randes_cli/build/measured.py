"""Lengths of new deltas: supposed, of a sample, or of what a whole pass summed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.tally import Tally
from randes_cli.build.samples.looks import deltas_of
from randes_cli.build.samples.sample import gather_spreads
from randes_cli.build.samples.small import Spots, base_values, deltas, small_lists
from randes_cli.build.samples.stand_ins import fill_rows
from randes_cli.build.steps import Step, Steps
from randes_cli.core.arrays import F64, Bools
from randes_cli.core.energy import Energy, many_energies, many_lengths
from randes_cli.core.kernel import delta_energy
from randes_cli.files.source import Sample, Source
from randes_cli.plan import STEP_SAMPLE, Unit, sample_runs
from randes_cli.specs import TensorInfo, Tensors
from randes_cli.stats.lengths import norm_rows
from randes_cli.workers import no_progress


class Measured(NamedTuple):
    """Lengths of new deltas, see `core.prediction.lengths.Lengths`.

    Attributes:
        norms: ‖Δ‖², tensors × T.
        rounded: ⟨Δ, q⟩ and ‖q‖², 2 × that.
        changed: where there is any delta that is seen, however far below the grid.
    """

    norms: F64
    rounded: F64
    changed: Bools


def supposed_lengths(
    base: Mapping[str, TensorInfo], participants: Sequence[Participant]
) -> Measured:
    """All participants alike, in all their tensors: nothing of their data is at hand."""
    rows = norm_rows(base)
    norms = np.zeros((len(rows), len(participants)))
    for row, name in enumerate(rows):
        there = [name in participant.fit.superposed for participant in participants]
        norms[row, there] = base[name].elements
    return Measured(norms, np.stack([norms, norms]), np.asarray(norms > 0))


def sampled_lengths(
    base: Source | None,
    participants: Sequence[Participant],
    steps: Steps,
    rows: Sequence[str],
    *,
    only_added: bool,
    stands: Mapping[Unit, Unit] = MappingProxyType({}),
) -> Measured:
    """Lengths on the step sample, scaled to whole tensors; `rows` are the tensors' names.

    A step that the sample shows to be too fine counts as raised, as packing raises it. For
    `stands` see `stand_ins`.
    Raises BeyondGrid or Overflowing where the sample shows that no step will do.
    """
    units = [unit for unit in steps.exponents() if unit not in stands]
    peaks = gather_spreads(base, participants, units, no_progress).peaks.tolist()
    grids = dict[Unit, int]()
    for unit, peak in zip(units, peaks, strict=True):
        most = int(peak / 2.0 ** steps.step(unit).exponent)
        grids[unit] = steps.foreseen(unit, most, only_added=only_added)
    norms = np.zeros((len(rows), len(participants)))
    rounded, changed = np.zeros((2, *norms.shape)), np.zeros(norms.shape, np.bool_)
    place = {name: row for row, name in enumerate(rows)}
    for one in small_lists(units, len(participants), STEP_SAMPLE[0], far=False):
        if isinstance(one, Unit):
            found = _looks(base, participants, one, grids[one])
        else:
            found = _small_looks(base, participants, one, grids)
        for look in found:
            at = [*map(place.__getitem__, look.names)]
            changed[at, look.who] = look.changed
            norms[at, look.who], rounded[0, at, look.who], rounded[1, at, look.who] = look.lengths
    for values in (norms, rounded, changed):
        fill_rows(values, place, stands)
    return Measured(norms, rounded, changed)


class _Look(NamedTuple):
    """What a participant's deltas of some tensors came to: `many_lengths`, and where any is."""

    names: Sequence[str]
    who: int
    lengths: F64
    changed: Bools


def _looks(
    base: Source | None, participants: Sequence[Participant], unit: Unit, grid: int
) -> Iterator[_Look]:
    """Those of a unit that is not its own sample, scaled to the whole."""
    sample = Sample(base, sample_runs(unit.rows, unit.cols, STEP_SAMPLE))
    factor = unit.rows * unit.cols / max(1, sample.elements)
    for name in unit.names:
        for who, delta in enumerate(deltas_of(sample, participants, name)):
            if delta is not None and delta.any():
                energy = delta_energy(delta, grid)
                found = energy.whole(grid), energy.kept(grid), energy.rounded(grid)
                yield _Look([name], who, factor * np.array(found)[:, None], np.ones(1, np.bool_))


def _small_looks(
    base: Source | None,
    participants: Sequence[Participant],
    spots: Spots,
    grids: Mapping[Unit, int],
) -> Iterator[_Look]:
    """Those of tensors that are their own samples, each in steps of its own."""
    steps = np.array([*map(grids.__getitem__, spots.units)], np.int64)
    for at, unit, names in spots.alike():
        zero = base_values(base, names, unit)
        for who, one in enumerate(participants):
            delta, _ = deltas(base, zero, one, names, unit)
            lengths = many_lengths(*many_energies(delta, steps[at]), steps[at])
            yield _Look(names, who, lengths, np.asarray(delta.any(axis=1)))


def gather_lengths(
    base: Tensors,
    indices: Sequence[int],
    steps: Mapping[Unit, Step],
    tally: Tally,
) -> Measured:
    """Lengths by superposable tensor of the base and task, from the sums of a tally."""
    exponent = {name: step.exponent for unit, step in steps.items() for name in unit.names}
    rows = {name: row for row, name in enumerate(norm_rows(base))}
    columns = {index: column for column, index in enumerate(indices)}
    norms = np.zeros((len(rows), len(indices)))
    rounded = np.zeros((2, *norms.shape))
    for sums in tally.many:
        if sums.owner in columns:
            at = [*map(rows.__getitem__, sums.names)]
            grids = np.array([*map(exponent.__getitem__, sums.names)], np.int64)
            whole, kept, square = many_lengths(sums.squares, sums.crossed, sums.rests, grids)
            norms[at, columns[sums.owner]] = whole
            rounded[0, at, columns[sums.owner]] = kept
            rounded[1, at, columns[sums.owner]] = square
    for (index, name), chunks in tally.energies.items():
        if index not in columns:
            continue
        total, step = Energy(*map(sum, zip(*chunks.values(), strict=True))), exponent[name]
        row, column = rows[name], columns[index]
        norms[row, column] = total.whole(step)
        rounded[:, row, column] = total.kept(step), total.rounded(step)
    return Measured(norms, rounded, np.asarray(norms > 0))
