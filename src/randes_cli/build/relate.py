"""How added tasks relate to those that a bank holds: their Gram matrices.

A pair is exact where the older task's checkpoint can be read again. Otherwise ⟨Δ_i, Δ_j⟩ is
estimated with the retrieval of j in place of Δ_j, and marked so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from randes_cli.build.draft import Draft
from randes_cli.build.inputs.participants import Deltas, Participant
from randes_cli.build.inputs.tasks import reopen
from randes_cli.build.measured import Measured
from randes_cli.build.samples.grams import Away, Grams
from randes_cli.core.arrays import F32, F64
from randes_cli.core.columns import some_columns
from randes_cli.core.tails import tails
from randes_cli.errors import MismatchError, OutOfResources, RandesError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.base import BankTensors, found_recorded
from randes_cli.files.hub.ref import HubRef, recorded_ref
from randes_cli.files.reading import read_values_of
from randes_cli.files.source import Sample
from randes_cli.fit import fit_task
from randes_cli.plan import Rect, Unit
from randes_cli.read.sealed import StepsReader
from randes_cli.read.task_tensors import TaskTensors
from randes_cli.specs import OpenOptions
from randes_cli.stats.grams import GramTable
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.stored import Cells, Statistics, drop_tasks, merge_cells
from randes_cli.workers import Progress


class Echo:
    """A stored task whose deltas are read as their retrievals, λ = 1."""

    def __init__(self, bank: BankFile, task: TaskRecord) -> None:
        self.bank, self.task = bank, task
        self.group, self.seed, self.index = task.group, task.seed, task.index
        self._tensors = TaskTensors(bank, task)
        self._reader = StepsReader(bank, task.group, _trust)

    def delta(self, base: Sample, name: str) -> F32 | None:
        """The retrieved delta on a sample of a tensor; None where there is none."""
        unit, position = self._tensors.place(name)
        key = self._tensors.sum_key(name)
        if key not in self.bank:
            return None
        flips = unit.flips(self.seed, position)
        return np.concatenate([self._run(unit, key, flips, name, rect) for rect in base.runs])

    def many(self, zero: F32 | None, names: Sequence[str], unit: Unit) -> F32 | None:
        """`delta` of tensors like a unit's, one a row; None where sums are no such integers."""
        places = [self._tensors.place(name) for name in names]
        held = [found.names[position] for found, position in places]
        keys, elements = [sum_key(self.group, name) for name in held], unit.form.elements
        sums = some_columns(self.bank.header.tensors, keys)
        if not sums.where(lambda one: one.dtype != "U8" and one.elements == elements).all():
            return None
        steps = np.array([*map(self.bank.manifest.steps.__getitem__, names)])
        signs = unit.form.many_signs(held, self.seed)
        made = read_values_of(BankTensors(self.bank), keys, elements)
        made *= signs * np.ldexp(np.float32(1), steps)[:, None]
        return made

    def _run(self, unit: Unit, key: str, flips: bytes, name: str, rect: Rect) -> F32:
        step = self._tensors.share(name).every * 2.0 ** self.bank.manifest.steps[name]
        signs = unit.window(flips, rect, step).values()
        held = self._tensors.held(name)
        return self._reader.steps(held, rect.start, rect.elements) * signs.reshape(-1)


def _trust(found: bytes, recorded: bytes, key: str) -> None:
    """Estimates read unchecked: damage shows where a task is retrieved."""


@dataclass(frozen=True, slots=True)
class Older:
    """A task that a bank holds, and where its checkpoint was found that is read again, if any."""

    index: int
    source: str | None


def _found_again(
    draft: Draft, bank: BankFile, task: TaskRecord, stack: ExitStack
) -> tuple[Deltas, Older]:
    """A stored task with its original checkpoint, where that is found and looks the same."""
    path, ref = found_recorded(task.source, bank.path), recorded_ref(task.source)
    if path is not None and (ref is None or _is_here(ref)):  # else not worth gigabytes
        try:
            return _reread(draft, bank, task, path, stack), Older(task.index, path)
        except RandesError as error:
            if isinstance(error, OutOfResources):
                raise
    return Echo(bank, task), Older(task.index, None)


def _is_here(ref: HubRef) -> bool:
    from randes_cli.files.hub.repository import is_cached

    return is_cached(ref)


def _reread(
    draft: Draft, bank: BankFile, task: TaskRecord, path: str, stack: ExitStack
) -> Participant:
    """A stored task with a checkpoint. Raises MismatchError where it is none of this task."""
    leave = OpenOptions().recorded(task.pickle, task.layout)
    opened = reopen(stack, task.name, path, draft.base, leave)
    if opened.source.tensors != TaskTensors(bank, task).tensors:
        raise MismatchError(f"{path}: not what {task.name} was packed from")
    opened = opened.under(task.ties)
    fit = fit_task(draft.base.tensors, opened.source.tensors, draft.unit_of)
    return Participant(opened, fit, task.index, task.seed, task.group)


def reopened(draft: Draft, older: Sequence[Older], stack: ExitStack) -> list[Deltas]:
    """Tasks of a draft's old bank as another machine has opened them.

    Raises what opening a checkpoint raises that is there, and not here.
    """
    bank, made = draft.old, list[Deltas]()
    leaving = {participant.index: participant for participant in draft.leaving}
    for task, one in zip(bank.manifest.tasks if bank else (), older, strict=True):
        if bank is None or task.index != one.index:
            raise AssertionError(task)
        again = None if one.source is None else _reread(draft, bank, task, one.source, stack)
        made.append(leaving.get(task.index) or again or Echo(bank, task))
    return made


class Relation:
    """How the tasks that a draft adds relate to each other and to those that stay.

    `stored` are the statistics of its old bank, `cells` what the new Gram matrices cover at the
    finest, `tasks` the older tasks; `ahead` and `stands` are as `Grams` has them.
    """

    def __init__(
        self,
        stored: Statistics,
        draft: Draft,
        cells: Cells,
        tasks: Sequence[Deltas],
        units: Iterable[Unit],
        *,
        ahead: bool,
        stands: Mapping[Unit, Unit],
        away: Away | None,
    ) -> None:
        self._stored = merge_cells(stored, cells) if len(cells) < len(stored.cells) else stored
        self._draft, self._tasks = draft, tasks
        self._ahead, self._stands, self._away = ahead, stands, away
        self._grams = self._of(units)

    def _of(self, units: Iterable[Unit]) -> Grams:
        return Grams(
            self._draft.deltas_from,
            [*self._tasks, *self._draft.coming],
            units,
            self._stored.cells,
            norm_rows(self._draft.base.tensors),
            len(self._tasks),
            ahead=self._ahead,
            stands=self._stands,
            away=self._away,
        )

    def beside(self) -> Iterator[Callable[[], None]]:
        """Steps of it that may be taken while a pass is under way."""
        return self._grams.beside()

    def statistics(
        self, lengths: Measured, units: Iterable[Unit], progress: Progress
    ) -> Statistics:
        """The statistics of a bank with the tasks that come and without those that go.

        `lengths` are those of the new tasks' deltas, `units` what has or gets a superposition:
        where a pass showed more, all is looked at again, for sums are made in their order.
        """
        units, tasks, draft, stored = list(units), self._tasks, self._draft, self._stored
        if units != self._grams.units:
            self._grams = self._of(units)
        packed, sampled = self._grams.packed(progress)
        del self._grams  # of many tensors it holds as much again
        ends = _tails(draft, sampled, lengths.norms)
        if not tasks:  # of a new bank half is enough
            return _joined(stored, packed, [], draft, lengths, ends)
        found, before = np.asarray(packed), np.asarray(stored.grams)
        exact = [_same_sample(before, found, n, one) for n, one in enumerate(tasks)]
        _share_all(found, exact, tasks, draft)
        old = len(stored.indices)
        found[:, :, :old, :old] = before
        whole = _joined(stored, found, exact, draft, lengths, ends)
        return drop_tasks(whole, {task.index for task in draft.gone})


@contextmanager
def related(
    stored: Statistics,
    draft: Draft,
    cells: Cells,
    units: Iterable[Unit],
    *,
    ahead: bool,
    stands: Mapping[Unit, Unit],
    away: Callable[[Sequence[Older]], Away] | None,
) -> Iterator[Relation]:
    """The relation of a draft's tasks, the older ones' checkpoints open where they are found.

    `away`: what looks at units elsewhere, beside these older tasks.
    """
    leaving = {participant.index: participant for participant in draft.leaving}
    with ExitStack() as stack:
        found = list[tuple[Deltas, Older]]()
        for task in draft.old.manifest.tasks if draft.old else ():
            known = leaving.get(task.index)
            if known is not None:
                found.append((known, Older(task.index, None)))
            elif draft.old is not None:
                found.append(_found_again(draft, draft.old, task, stack))
        tasks = [one for one, _ in found]
        there = stored, draft, cells, tasks, units
        looks = None if away is None else away([one for _, one in found])
        yield Relation(*there, ahead=ahead, stands=stands, away=looks)


def _joined(
    stored: Statistics,
    found: GramTable,
    exact: Sequence[bool],
    draft: Draft,
    lengths: Measured,
    ends: F64,
) -> Statistics:
    """What is stored of the older tasks, with what was found of the added ones."""
    indices = tuple(participant.index for participant in draft.coming)
    unsure = [index for index, sure in zip(stored.indices, exact, strict=True) if not sure]
    return replace(
        stored,
        indices=(*stored.indices, *indices),
        known=stored.known.joined(lengths.norms, lengths.rounded, ends),
        grams=found,
        estimated=stored.estimated | {(older, new) for older in unsure for new in indices},
    )


def _tails(draft: Draft, sampled: F64, norms: F64) -> F64:
    """The tails of the coming deltas by superposable tensor, zeros of what is not sampled."""
    base = draft.base.tensors
    sizes = [max(1, base[name].elements) for name in norm_rows(base)]
    made = tails(sampled, norms / np.array(sizes, np.float64)[:, None])
    return np.asarray(made * (sampled[3] > 0))


def _same_sample(stored: F64, found: F64, task: int, deltas: Deltas) -> bool:
    """Whether a checkpoint found again gives the very sample that was packed."""
    return isinstance(deltas, Participant) and bool(
        np.array_equal(stored[:, 0, task, task], found[:, 0, task, task])
    )


def _share_all(found: F64, exact: Sequence[bool], tasks: Sequence[Deltas], draft: Draft) -> None:
    forgotten = Counter(group for _, group in draft.old.manifest.forgotten) if draft.old else {}
    for group in sorted({one.group for one in draft.coming}):
        near = [n for n, one in enumerate(tasks) if one.group == group]
        far = [len(tasks) + n for n, one in enumerate(draft.coming) if one.group == group]
        _share_out(found, exact, near, far, forgotten.get(group, 0))


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
    during = found[:, 1]
    rest = during[:, added, unknown[0]] - during[:, added][:, :, known].sum(axis=2)
    rest /= len(unknown) + forgotten
    for n in unknown:
        during[:, added, n] = rest
        during[:, n, added] = rest
