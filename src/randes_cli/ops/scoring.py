"""Scores of checkpoints: a user's command or Python callable, run on retrieved tasks."""

from __future__ import annotations

import errno
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path

from randes_cli.errors import MissingError, UsageError
from randes_cli.files.atomic import wrap_os_error
from randes_cli.files.passing import passing_folder
from randes_cli.limits import MOST_SCORE, StrPath
from randes_cli.read.unpack import UnpackOptions, unpack
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress

#: Called with a checkpoint and a task's name; returns a score, higher being better.
Evaluate = Callable[[Path, str], float]

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]*\w)")


def last_number(text: str) -> float | None:
    """The last number of a text, or None: ``epoch 3: accuracy 0.934`` → 0.934."""
    found = _NUMBER.findall(text)
    number = float(found[-1]) if found else None
    return number if number is not None and isfinite(number) else None


def command_evaluator(command: str, environment: Mapping[str, str] | None = None) -> Evaluate:
    """An evaluator that runs a command, without a shell, and takes the last number it prints.

    ``{checkpoint}`` and ``{task}`` are replaced in every word. It gets `environment`, or this
    process's. Raises UsageError where there is
    no ``{checkpoint}``.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--evaluate: {error}") from None
    if not any("{checkpoint}" in word for word in words):
        raise UsageError("--evaluate: say where the checkpoint goes, as CMD {checkpoint} {task}")

    def evaluate(checkpoint: Path, task: str) -> float:
        filled = [
            word.replace("{checkpoint}", str(checkpoint)).replace("{task}", task) for word in words
        ]
        return _run(filled, task, environment)

    return evaluate


def _run(words: list[str], task: str, environment: Mapping[str, str] | None) -> float:
    try:
        done = subprocess.run(words, capture_output=True, check=False, env=environment)
    except FileNotFoundError:
        raise MissingError(f"--evaluate: {words[0]}: no such command") from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.E2BIG):
            raise UsageError(f"--evaluate: {words[0]}: {error.strerror or error}") from None
        raise wrap_os_error(error, f"--evaluate: {words[0]}", "starting it") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        last = f": {said[-1][:200]}" if said else ""
        raise UsageError(f"--evaluate: the command ended with {done.returncode} on {task}{last}")
    score = last_number(done.stdout.decode(errors="replace"))
    if score is None:
        raise UsageError(f"--evaluate: the command printed no number for {task}")
    return score


def checked_score(evaluate: Evaluate, checkpoint: Path, task: str) -> float:
    """The score of a checkpoint. Raises UsageError where it is no finite number."""
    score = evaluate(checkpoint, task)
    number = not isinstance(score, bool) and isinstance(score, (int, float))
    if not number or not abs(score) <= MOST_SCORE:
        said = f"{score!r:.60}, not a finite number below {MOST_SCORE:g}"
        raise UsageError(f"the evaluation of {task} gave {said}")
    return float(score)


def score_retrieved(
    bank: Path,
    task: str,
    coefficient: float | None,
    evaluate: Evaluate,
    run: RunOptions,
    *,
    base: StrPath | None,
    progress: Progress,
) -> tuple[float, float]:
    """(score, λ) of a task retrieved at λ (None: its own) into a folder that goes afterwards."""
    options = UnpackOptions(coefficient=coefficient, saturate=True)
    with passing_folder() as folder:
        out = folder / "retrieved"
        out.mkdir()
        report = unpack(bank, [task], out, options, run, base=base, progress=progress)[0]
        return checked_score(evaluate, Path(report.path), task), report.coefficient
