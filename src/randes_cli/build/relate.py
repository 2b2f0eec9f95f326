"""How added tasks relate to those that a bank holds: their Gram matrices.

A pair is exact where the older task's checkpoint can be read again. Otherwise ⟨Δ_i, Δ_j⟩ is
estimated with the retrieval of j in place of Δ_j, and marked so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from randes_cli.build.inputs import bank_source, reopen
from randes_cli.build.sample import Deltas
from randes_cli.build.sampled import BaseSample
from randes_cli.build.strips import Participant, unit_bits, unit_order
from randes_cli.errors import RandesError
from randes_cli.files.bank import BankFile
from randes_cli.files.hub import is_cached
from randes_cli.files.hub_ref import recorded_ref
from randes_cli.files.records import TaskRecord
from randes_cli.plan import Rect, Unit, fit_task, plan_units
from randes_cli.read.retrieve import BankBase, Retrieval, find_recorded
from randes_cli.read.sealed import SealedReader
from randes_cli.specs import OpenOptions
from randes_cli.stats.stored import (
    Statistics,
    choose_cells,
    gather_grams,
    merge_cells,
)
from randes_cli.workers import Progress

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


class Echo:
    """A stored task whose deltas are read as their retrievals, λ = 1."""

    def __init__(self, bank: BankFile, task: TaskRecord) -> None:
        self.bank, self.task = bank, task
        self.group = task.group
        self._retrieval = Retrieval(bank, None, task)
        self._named = {tensor.name: tensor for tensor in bank.manifest.base.tensors}
        self._sealed = {group: SealedReader(bank, group, _trust) for group in bank.manifest.sealed}

    def order(self, unit: Unit) -> list[int]:
        """σ of the task on a unit."""
        return unit_order(unit, self.task.seed, self.task.index)

    def bits(self, unit: Unit, position: int) -> bytes:
        """The packed sign bits of the task at a position of a unit."""
        return unit_bits(unit, self.task.seed, position)

    def delta(self, base: BaseSample, name: str) -> F32 | None:
        """The retrieved delta on a sample of a tensor; None where there is none."""
        unit, position = self._retrieval.place(name)
        key = self._retrieval.sum_key(name)
        if key not in self.bank:
            return None
        flips = self.bits(unit, position)
        return np.concatenate([self._run(unit, key, flips, name, rect) for rect in base.runs])

    def _run(self, unit: Unit, key: str, flips: bytes, name: str, rect: Rect) -> F32:
        step = 2.0 ** self.bank.manifest.steps[name]
        signs = unit.window(flips, rect, step).values()
        return self._steps(key, rect) * signs.reshape(-1)

    def _steps(self, key: str, rect: Rect) -> F32:
        """A rectangle of a superposition, in steps."""
        info = self.bank.info(key)
        if info.dtype == "U8":
            tensor = self._named[key.split("/", 2)[2]]
            return self._sealed[self.task.group].steps(tensor, rect.start, rect.elements)
        size = info.nbytes // info.elements
        raw = np.empty(rect.elements * size, np.uint8)
        self.bank.read_into(key, rect.start * size, raw)
        return raw.view(np.int16 if size == 2 else np.int8).astype(np.float32)


def _trust(found: bytes, recorded: bytes, key: str) -> None:
    """Estimates read unchecked: damage shows where a task is retrieved."""


def _reread(
    bank: BankFile,
    base: BankBase | None,
    task: TaskRecord,
    unit_of: Mapping[str, Unit],
    stack: ExitStack,
) -> Participant | None:
    """A stored task with its original checkpoint, where that is found and looks the same."""
    path = find_recorded(task.source, bank.path)
    ref = recorded_ref(task.source)
    if path is None or (ref is not None and not is_cached(ref)):  # not worth gigabytes
        return None
    try:
        checkpoint = reopen(stack, path, bank_source(bank, base), OpenOptions())
    except RandesError:
        return None
    if checkpoint.tensors != Retrieval(bank, None, task).tensors:
        return None
    named = {tensor.name: tensor for tensor in bank.manifest.base.tensors}
    fit = fit_task(named, checkpoint.tensors, unit_of)
    return Participant(task.name, task.index, task.seed, checkpoint, fit, group=task.group)


def relate(
    stored: Statistics,
    bank: BankFile,
    base: BankBase | None,
    added: Sequence[Participant],
    lengths: tuple[F64, F64],
    exponents: Mapping[Unit, int],
    progress: Progress,
) -> Statistics:
    """The statistics of a bank with `added` tasks.

    `lengths` has their ‖Δ‖² by tensor and what rounding leaves of it (see `gather_lengths`);
    `exponents` the steps of every unit that has or gets a superposition.
    """
    manifest = bank.manifest
    units = plan_units(manifest.base.tensors, manifest.transform)
    unit_of = {name: unit for unit in units for name in unit.names}
    old, count = len(stored.indices), len(stored.indices) + len(added)
    cells = tuple(choose_cells(units, manifest.base.tensors, count))
    if len(cells) < len(stored.cells):
        stored = merge_cells(stored, cells)
    with ExitStack() as stack:
        tasks: list[Deltas] = []
        for task in manifest.tasks:
            again = _reread(bank, base, task, unit_of, stack)
            tasks.append(again or Echo(bank, task))
        found = gather_grams(base, [*tasks, *added], exponents, stored.cells, progress, old)
    exact = [_same_sample(stored.grams, found, n, tasks[n]) for n in range(old)]
    for group in range(manifest.groups):
        near = [n for n in range(old) if tasks[n].group == group]
        far = [old + n for n, participant in enumerate(added) if participant.group == group]
        forgotten = sum(where == group for _, where in manifest.forgotten)
        _share_out(found, exact, near, far, forgotten)
    found[:, :, :old, :old] = stored.grams
    indices = (*stored.indices, *(participant.index for participant in added))
    guesses = {
        (stored.indices[n], participant.index)
        for n in range(old)
        if not exact[n]
        for participant in added
    }
    return replace(
        stored,
        indices=indices,
        norms=np.ascontiguousarray(np.concatenate([stored.norms, lengths[0]], axis=1)),
        rounded=np.ascontiguousarray(np.concatenate([stored.rounded, lengths[1]], axis=2)),
        grams=found,
        estimated=stored.estimated | guesses,
    )


def _same_sample(stored: F64, found: F64, task: int, deltas: Deltas) -> bool:
    """Whether a checkpoint found again gives the very integers that were packed."""
    return isinstance(deltas, Participant) and bool(
        np.array_equal(stored[:, 0, task, task], found[:, 0, task, task])
    )


def _share_out(
    found: F64, exact: Sequence[bool], near: Sequence[int], added: Sequence[int], forgotten: int
) -> None:
    """Divide ⟨O_i Δ_i, S⟩, less what is known, among the tasks whose part in S is not known.

    `near` and `added` are the older and the added tasks of one group.
    """
    unknown = [n for n in near if not exact[n]]
    if not unknown or not added:
        return
    known = [n for n in near if exact[n]]
    met = found[:, 1]
    rest = met[:, added, unknown[0]] - met[:, added][:, :, known].sum(axis=2)
    rest /= len(unknown) + forgotten
    for n in unknown:
        met[:, added, n] = rest
        met[:, n, added] = rest
