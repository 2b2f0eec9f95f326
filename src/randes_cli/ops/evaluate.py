"""`evaluate`: every task retrieved and scored, beside its original and the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from randes_cli.errors import CheckpointError, MismatchError, MissingError
from randes_cli.files.base import find_recorded
from randes_cli.files.hub.ref import is_here
from randes_cli.files.local.guard import SteadyFiles, note_sources, reading, watch
from randes_cli.files.nearest import absent
from randes_cli.files.sources import local_bank, open_bank
from randes_cli.limits import StrPath, as_source, sources_by_task
from randes_cli.ops.originals import open_originals
from randes_cli.ops.scoring import Evaluate, checked_score, score_retrieved
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress, no_progress


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One task's scores; None where there was nothing to score.

    Attributes:
        retrieved: of the task as it comes out of the bank, at λ `coefficient`.
        original: of the checkpoint that was packed (or of another: `EvaluateReport.strange`).
        base: of the base, with the tensors that the task keeps exactly (its classifier head).
        normalised: retrieved / original, as in the paper's tables; None unless that is above 0.
    """

    task: str
    coefficient: float
    retrieved: float
    original: float | None
    base: float | None
    normalised: float | None


@dataclass(frozen=True, slots=True)
class EvaluateReport:
    """Scores of every task, and their means over the tasks that have them.

    Attributes:
        strange: tasks whose original is not the checkpoint that was packed, by its fingerprint.
    """

    bank: str
    bank_bytes: int
    tasks: tuple[TaskScore, ...]
    strange: tuple[str, ...] = ()

    @property
    def mean(self) -> TaskScore:
        """The mean of each column over the tasks that have it."""
        return TaskScore(
            "mean",
            fmean(task.coefficient for task in self.tasks),
            fmean(task.retrieved for task in self.tasks),
            _mean([task.original for task in self.tasks]),
            _mean([task.base for task in self.tasks]),
            _mean([task.normalised for task in self.tasks]),
        )


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


@reading()
def evaluate(
    bank: StrPath,
    evaluate: Evaluate,
    run: RunOptions | None = None,
    *,
    tasks: Sequence[str] | None = None,
    originals: Mapping[str, StrPath] | None = None,
    base: StrPath | None = None,
    coefficient: float | None = None,
    progress: Progress = no_progress,
) -> EvaluateReport:
    """Score tasks (None: all) as retrieved, and their originals and the base beside them.

    `originals` has checkpoints by task; otherwise recorded sources that lie beside the bank are
    used; `strange` of the report names those that are not what was packed. `base` is a checkpoint
    of the base; otherwise it is retrieved as the task with λ = 0.
    Raises MissingError (no such task, no such original), UsageError (an evaluation failed),
    MismatchError (the bank changed meanwhile), BankDamaged.
    """
    path, run = local_bank(as_source(bank)), run or RunOptions()
    note_sources([path, base, *sources_by_task(originals).values()])
    with open_bank(as_source(path)) as file:
        file.require_tasks()
        names = tuple(dict.fromkeys(tasks or (task.name for task in file.manifest.tasks)))
        records = [file.task(name) for name in names]
        for name, source in (originals or {}).items():
            file.task(name)
            if not is_here(as_source(source)):
                raise MissingError(absent(Path(source)))
        size, where, fingerprint = file.size, file.path, file.store.fingerprint
    if base is not None:
        watch(SteadyFiles(base))
    made, strange = [], []
    for record in records:
        found = (originals or {}).get(record.name) or find_recorded(record.source, where)
        how = partial(score_retrieved, path, record.name, base=base, fingerprint=fingerprint)
        score, chosen = how(coefficient, evaluate, run)
        progress("evaluating", 1, 3 * len(records))
        original = None
        if found is not None and Path(found).exists():
            watch(SteadyFiles(found))
            if not _is_packed(path, record.name, found, run, base):
                strange.append(record.name)
            original = checked_score(evaluate, Path(found), record.name)
        progress("evaluating", 1, 3 * len(records))
        if base is not None:
            low = checked_score(evaluate, Path(base), record.name)
        else:
            low = how(0.0, evaluate, run)[0]
        progress("evaluating", 1, 3 * len(records))
        ratio = score / original if original is not None and original > 0 else None
        made.append(TaskScore(record.name, chosen, score, original, low, ratio))
    return EvaluateReport(str(where), size, tuple(made), tuple(strange))


def _is_packed(
    bank: StrPath, task: str, found: StrPath, run: RunOptions, base: StrPath | None
) -> bool:
    """Whether a checkpoint is the one that was packed as a task."""
    try:
        with (
            open_bank(as_source(bank)) as file,
            open_originals(file, {task: found}, run, base) as (_, (original,)),
        ):
            return original.is_packed(run, no_progress)
    except (CheckpointError, MismatchError):
        return False
