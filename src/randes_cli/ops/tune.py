"""`tune`: the λ at which each task scores best, found by retrieving and scoring it (Figure 4)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from randes_cli.build.jobs.copies import rewrite_manifest
from randes_cli.errors import UsageError, counted
from randes_cli.files.atomic import write_whole
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.header import parse_json
from randes_cli.files.hidden import short
from randes_cli.files.local.guard import one_command
from randes_cli.files.local.lock import bank_lock, edited_bank
from randes_cli.files.location import Place, as_place
from randes_cli.files.sources import require_same
from randes_cli.limits import MOST_COEFFICIENT, MOST_SECONDS, StrPath, as_source, check_number
from randes_cli.ops.scoring import Evaluate, score_retrieved
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress, no_progress

Curve = tuple[tuple[float, float], ...]
#: The paper's grid.
GRID = "0.1:1.0:0.1"
_MOST_POINTS = 1000


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How tuning runs.

    Attributes:
        grid: values of λ to try, ascending.
        tasks: tasks to tune (None: all).
        uniform: one λ for all, the best on average.
        resume: take up the scores of an interrupted run of the same bank and label.
        label: what the evaluation is, so that a resumed run does not mix two.
        base: the base's checkpoint, where it lies outside the bank and has moved.
        wait: seconds to wait for another editor.
    """

    grid: tuple[float, ...]
    tasks: tuple[str, ...] | None = None
    uniform: bool = False
    resume: bool = False
    label: str = ""
    base: StrPath | None = None
    wait: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.grid) <= _MOST_POINTS:
            raise UsageError(
                f"--grid: {counted(len(self.grid), 'value')}; from 1 to {_MOST_POINTS}"
            )
        for coefficient in self.grid:
            check_number("--grid", coefficient, MOST_COEFFICIENT)
        object.__setattr__(self, "grid", tuple(sorted({float(value) for value in self.grid})))
        check_number("--wait", self.wait, MOST_SECONDS)


@dataclass(frozen=True, slots=True)
class TunedTask:
    """One task: its curve of (λ, score), the λ recorded, and its score there."""

    task: str
    coefficient: float
    score: float
    curve: Curve


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What `tune` found and recorded; `resumed` scores came from an interrupted run."""

    bank: str
    uniform: bool
    evaluations: int
    resumed: int
    bytes_written: int
    tasks: tuple[TunedTask, ...]


def parse_grid(text: str) -> tuple[float, ...]:
    """``0.1:1.0:0.1`` (first, last, step) or ``0.5,0.75,1`` as ascending values of λ.

    Raises UsageError.
    """
    wrong = UsageError(f"--grid {text!r}: write it as FIRST:LAST:STEP or as A,B,C")
    try:
        numbers = [float(part) for part in text.replace(":", ",").split(",")]
    except ValueError:
        raise wrong from None
    if not all(abs(number) <= MOST_COEFFICIENT for number in numbers):
        most = MOST_COEFFICIENT
        raise UsageError(f"--grid {text!r}: λ is a number from {-most:g} to {most:g}")
    if ":" in text:
        if len(numbers) != 3 or numbers[2] <= 0 or numbers[1] < numbers[0]:
            raise wrong
        first, last, step = numbers
        steps = (last - first) / step + 1e-9
        if steps >= _MOST_POINTS:
            raise UsageError(f"--grid {text!r}: more than {_MOST_POINTS} values")
        numbers = [round(first + step * place, 10) for place in range(int(steps) + 1)]
    return tuple(sorted(set(numbers)))


@one_command()
def tune(
    bank: StrPath,
    evaluate: Evaluate,
    options: TuneOptions | None = None,
    run: RunOptions | None = None,
    *,
    progress: Progress = no_progress,
) -> TuneReport:
    """Score every task at every λ of the grid and record the best in the bank's manifest.

    The bank is not touched before the last score is in; then it is replaced in one commit.
    Scores so far lie in ``<bank>.tuning.json`` until then (here, for a bank in a store).
    Raises MissingError (no such task), UsageError (an evaluation failed), MismatchError (the
    bank changed meanwhile), BankLocked.
    """
    path, run = edited_bank(as_place(as_source(bank))), run or RunOptions()
    options = options or TuneOptions(parse_grid(GRID))
    with BankFile(path) as file:
        file.require_tasks()
        names = tuple(dict.fromkeys(options.tasks or ())) or tuple(
            task.name for task in file.manifest.tasks
        )
        for name in names:
            file.task(name)
        fingerprint = file.store.fingerprint
    notes = _Notes(path, fingerprint.hex(), options)
    made = 0
    resumed = sum((name, point) in notes for name in names for point in options.grid)
    total = len(names) * len(options.grid)
    for name in names:
        for coefficient in options.grid:
            if (name, coefficient) not in notes:
                how = partial(score_retrieved, base=options.base, fingerprint=fingerprint)
                notes.add(name, coefficient, how(path, name, coefficient, evaluate, run)[0])
                made += 1
            progress("tuning", 1, total)
    curves = {name: notes.curve(name, options.grid) for name in names}
    chosen = _choose(curves, uniform=options.uniform)
    with bank_lock(path, wait=options.wait):
        require_same(path, fingerprint, "its tasks were scored")
        size = rewrite_manifest(path, lambda old: _recorded(old, chosen, curves))
    notes.remove()
    return TuneReport(
        bank=str(path),
        uniform=options.uniform,
        evaluations=made,
        resumed=resumed,
        bytes_written=size,
        tasks=tuple(
            TunedTask(name, chosen[name], dict(curve)[chosen[name]], curve)
            for name, curve in curves.items()
        ),
    )


def _choose(curves: Mapping[str, Curve], *, uniform: bool) -> dict[str, float]:
    """The best λ of each task, or of their mean; of equal scores the λ nearest to 1."""

    def best(curve: Curve) -> float:
        return max(curve, key=lambda pair: (pair[1], -abs(pair[0] - 1)))[0]

    if not uniform:
        return {name: best(curve) for name, curve in curves.items()}
    grid = [coefficient for coefficient, _ in next(iter(curves.values()))]
    columns = zip(*(curve for curve in curves.values()), strict=True)
    mean = [sum(score for _, score in column) / len(curves) for column in columns]
    return dict.fromkeys(curves, best(tuple(zip(grid, mean, strict=True))))


def _recorded(old: Manifest, chosen: Mapping[str, float], curves: Mapping[str, Curve]) -> Manifest:
    tasks = [
        replace(task, coefficient=chosen.get(task.name, task.coefficient)) for task in old.tasks
    ]
    return replace(old.with_tasks(tasks), tuning={**old.tuning, **curves})


class _Notes:
    """The scores so far, kept beside the bank so that an interruption loses one at most."""

    def __init__(self, bank: Place, identity: str, options: TuneOptions) -> None:
        notes = f"{short(bank.name)}.tuning.json"
        self._path = bank.with_name(notes) if isinstance(bank, Path) else Path(notes)
        self._head = {"bank": identity, "evaluate": options.label}
        self._scores: dict[str, dict[str, float]] = {}
        if options.resume:
            self._load()

    def _load(self) -> None:
        if not self._path.exists():
            return
        try:
            if not self._path.is_file():
                raise OSError("not a regular file")
            found: Any = parse_json(self._path.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"{self._path}: cannot be taken up ({error}); delete it") from None
        if not isinstance(found, dict) or {k: found.get(k) for k in self._head} != self._head:
            raise UsageError(
                f"{self._path}: is of another bank or another --evaluate; leave --resume out"
            )
        scores = found.get("scores")
        for name, curve in scores.items() if isinstance(scores, dict) else ():
            for coefficient, score in curve.items() if isinstance(curve, dict) else ():
                if isinstance(score, float) and isfinite(score):
                    self._scores.setdefault(name, {})[coefficient] = score

    def __contains__(self, point: tuple[str, float]) -> bool:
        return repr(point[1]) in self._scores.get(point[0], {})

    def add(self, name: str, coefficient: float, score: float) -> None:
        self._scores.setdefault(name, {})[repr(coefficient)] = score
        text = json.dumps({**self._head, "scores": self._scores}, indent=1)
        write_whole(self._path, text.encode(), force=True)

    def curve(self, name: str, grid: tuple[float, ...]) -> Curve:
        return tuple((point, self._scores[name][repr(point)]) for point in grid)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
