"""What the other tasks really leave in a retrieval, by type of tensor, beside the prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from randes_cli.core.arrays import F32, F64
from randes_cli.core.kernel import Kernel
from randes_cli.core.overlap import Overlap
from randes_cli.core.spectrum import largest_singular, random_bound
from randes_cli.errors import MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.base import BankBase
from randes_cli.files.source import Source
from randes_cli.limits import StrPath
from randes_cli.ops.compare import retrieved_and_true
from randes_cli.ops.originals import Originals, open_originals
from randes_cli.plan import CHUNK_ELEMENTS
from randes_cli.read.pieces import Piece
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import RunOptions
from randes_cli.stats.breakdown import GROUPINGS, Breakdown
from randes_cli.stats.stored import open_statistics
from randes_cli.workers import Progress, no_progress

#: Passes over a tensor that its largest singular value takes.
STEPS = 12
#: Elements of an interference matrix that is held between the passes; a larger one is
#: retrieved again for each.
HELD = 2**24


@dataclass(frozen=True, slots=True)
class InterferenceRow:
    """One task's tensors of one type or layer, measured at λ = 1, beside the prediction.

    Attributes:
        cosine: of the retrieved delta with the true one.
        error: ‖Δ̂ − Δ‖ / ‖Δ‖.
        largest: of the matrix E = Δ̂ − Δ whose largest singular value is most above its
            bound, that value; None where there is no matrix.
        bound: σ (√m + √n) of that matrix, σ being the root mean square of its entries:
            where the spectrum of a random matrix ends.
    """

    name: str
    tensors: int
    cosine: float
    predicted_cosine: float
    error: float
    predicted_error: float
    largest: float | None
    bound: float | None


@dataclass(frozen=True, slots=True)
class TaskInterference:
    """One task measured against its original: all of it, and by type or layer.

    Attributes:
        original: whether the checkpoint is the one that was packed, by its fingerprint.
    """

    task: str
    whole: InterferenceRow
    rows: tuple[InterferenceRow, ...]
    original: bool = True


@dataclass(frozen=True, slots=True)
class _Found:
    """One tensor: its true delta and the retrieved one, and its spectrum's end and bound."""

    overlap: Overlap
    largest: float = 0.0
    bound: float = 0.0


class _Measure:
    """One task's tensors, read strip by strip from the bank and from its original."""

    def __init__(self, retrieval: Retrieval, base: BankBase | None, original: Source) -> None:
        self.retrieval, self.base, self.original = retrieval, base, original

    def _pieces(self, name: str, kernel: Kernel) -> Iterator[tuple[Piece, F32, F32]]:
        """(piece, true delta, retrieved delta) of the superposed part of a tensor."""
        for piece in self.retrieval.pieces(name):
            if piece.own:
                continue
            true, back = retrieved_and_true(self.retrieval, self.base, self.original, kernel, piece)
            yield piece, true, back

    def tensor(self, name: str, kernel: Kernel) -> _Found:
        """Measure one superposed tensor."""
        overlap = Overlap()
        rows, cols = self.retrieval.tensors[name].matrix
        held: list[F32] | None = [] if rows * cols <= HELD else None
        height = 0
        for piece, true, back in self._pieces(name, kernel):
            overlap += Overlap.of(true, back)
            height = piece.rect.row1
            if held is not None:
                held.append(back - true)
        if min(height, cols) < 2 or cols > CHUNK_ELEMENTS or not overlap.apart:
            return _Found(overlap)

        def gram(vector: F64) -> F64:
            made, given = np.zeros(cols), vector.astype(np.float32)
            strips = held or (b - t for _, t, b in self._pieces(name, kernel))
            for one in strips:
                block = one.reshape(-1, cols)
                made += (block @ given) @ block
            return made

        rms = overlap.distance / float(np.sqrt(height * cols))
        return _Found(
            overlap, largest_singular(gram, cols, steps=STEPS), random_bound(rms, height, cols)
        )


def interference(
    bank: BankFile,
    originals: Originals,
    run: RunOptions,
    *,
    by: str = "type",
    base: StrPath | None = None,
    progress: Progress = no_progress,
) -> tuple[TaskInterference, ...]:
    """Measure tasks against their checkpoints; `by` is ``type`` or ``layer``. Streamed.

    Raises MismatchError for a checkpoint with other tensors than its task, or another base.
    """
    with open_originals(bank, originals, run, base) as (opened, tasks):
        cut = Breakdown(bank, open_statistics(bank), by)
        made = []
        for one in tasks:
            retrieval = Retrieval(bank, opened, one.task, coefficient=1.0, run=run)
            measure = _Measure(retrieval, opened, one.checkpoint)
            found = _run(measure, progress)
            same = one.is_packed(run, progress)
            made.append(replace(_task(cut, retrieval, by, found), original=same))
        return tuple(made)


def _run(measure: _Measure, progress: Progress) -> dict[str, _Found]:
    retrieval = measure.retrieval
    names = list(filter(retrieval.superposed, retrieval.once()))
    found: dict[str, _Found] = {}

    def work(kernel: Kernel, name: str) -> int:
        found[name] = measure.tensor(name, kernel)
        return retrieval.tensors[name].nbytes

    retrieval.workers.run(
        names,
        work,
        phase=f"measuring {retrieval.task.name}",
        total=sum(retrieval.tensors[name].nbytes for name in names),
        progress=progress,
    )
    return {name: found[name] for name in names}


def _task(
    cut: Breakdown, retrieval: Retrieval, by: str, found: dict[str, _Found]
) -> TaskInterference:
    groups: dict[str, list[_Found]] = {}
    for group, one in zip(GROUPINGS[by](list(found)), found.values(), strict=True):
        groups.setdefault(group, []).append(one)
    column = cut.statistics.indices.index(retrieval.task.index)
    predicted = {name: cut.task_row(name, column) for name in groups if name in cut.rows}
    rows = []
    for name, members in groups.items():
        row = predicted.get(name)
        if row is not None:
            pair = row.predicted_cosine, row.predicted_error
            rows.append(_row(name, members, *pair))
    if not rows:
        raise MismatchError(f"task {retrieval.task.name}: nothing of it is superposed")
    whole = cut.whole()
    ones = np.ones(len(whole.own))
    pair = float(whole.cosine[column]), float(whole.error(ones)[column])
    return TaskInterference(
        retrieval.task.name, _row("all", list(found.values()), *pair), tuple(rows)
    )


def _row(name: str, members: Sequence[_Found], cosine: float, error: float) -> InterferenceRow:
    whole = sum((one.overlap for one in members), Overlap())
    worst = max(members, key=lambda one: one.largest / one.bound if one.bound else 0.0)
    return InterferenceRow(
        name=name,
        tensors=len(members),
        cosine=whole.cosine,
        predicted_cosine=cosine,
        error=whole.error or 0.0,
        predicted_error=error,
        largest=worst.largest if worst.bound else None,
        bound=worst.bound or None,
    )
