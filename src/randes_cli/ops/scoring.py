"""Scores of checkpoints: a user's command or Python callable, run on retrieved tasks."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from math import inf, isfinite
from pathlib import Path

from randes_cli.errors import MissingError, UsageError
from randes_cli.files.local.disk import wrap_os_error
from randes_cli.files.passing import passing_folder
from randes_cli.files.sources import require_same
from randes_cli.limits import MOST_SCORE, StrPath
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import RunOptions

#: Called with a checkpoint and a task's name; returns a score, higher being better.
Evaluate = Callable[[Path, str], float]

#: What is done while a bank may not change.
_SCORED = "its tasks were scored"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
#: A line that is a score: a number, or NAME: number; a percent sign or a # comment change nothing.
_SCORE = re.compile(rf"(?:([^\W\d][\w .()@/-]*?)\s*[:=]\s*)?({_NUMBER})\s*%?(?:\s#.*)?")

#: Where a line begins with an object, as decoded in place: of a log's lines many may.
_BEGINNING, _DECODER = re.compile(r"^[^\S\n]*(?=\{)", re.MULTILINE), json.JSONDecoder()
#: Names, by how they end, of what is printed beside a score.
_BESIDE = re.compile(
    r"(.*[\W_])?(epochs?|steps?|sec(ond)?s?|time|runtime|elapsed|took|duration|std(err|dev)?|seed"
    r"|samples?|examples?|memory|lr)",
    re.IGNORECASE,
)
#: The same of measures that are better the lower.
_LOWER = re.compile(
    r"(.*[\W_])?(loss|nll|perplexity|ppl|[wct]er|r?mse|mae|err(or)?s?([\W_]rate)?|bp[bc]|fid|ece)",
    re.IGNORECASE,
)


def read_score(text: str, metric: str | None = None) -> float:
    """The score that a command printed, from the last line that says anything.

    That is a number, ``NAME: number`` or a JSON object (which may begin lines before); of several
    numbers in it `metric` names the one. Raises UsageError, showing the line, for anything else:
    a table's last number may be an error bar, an epoch or the seconds, and a loss is no score.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError("printed nothing")
    found = _SCORE.fullmatch(lines[-1])
    if found:
        if metric is not None and found[1] not in (None, metric):
            raise UsageError(f"printed {lines[-1][:200]!r}, and --metric is {metric}")
        return _named(found[1], found[2], metric)
    try:
        fields = _numbers(_last_object(text))
    except RecursionError:
        fields = {}
    if metric is not None:
        fields = {k: v for k, v in fields.items() if k == metric or k.endswith(f".{metric}")}
    if len(fields) == 1:
        return _named(*next(iter(fields.items())), metric)
    some = f"; it has {', '.join(fields)}: say --metric NAME" if len(fields) > 1 else ""
    none = f", which has no number {metric!r}" if metric is not None and not fields else ""
    raise UsageError(
        f"printed {lines[-1][:200]!r} at last{none}, not a number, NAME: number, or JSON with one "
        f"named number{some}"
    )


def _named(name: str | None, number: str | float, metric: str | None) -> float:
    """A number of this name, if it may be a score. Raises UsageError where it is none."""
    value = _finite(number)
    if name is not None and metric is None and _BESIDE.fullmatch(name):
        raise UsageError(f"printed {name[:80]} at last, which is no score (or say --metric NAME)")
    if name is not None and value > 0 and _LOWER.fullmatch(name):
        raise UsageError(
            f"printed {name[:80]} at last, which is better the lower; a score is better the "
            "higher: print its negative"
        )
    return value


def _finite(number: str | float) -> float:
    try:
        value = float(number)
    except OverflowError:
        value = inf
    if not isfinite(value):
        raise UsageError(f"printed {str(number)[:40]}, not a finite number")
    return value


def _last_object(text: str) -> object:
    """The JSON object that a text ends with, from the last line on where one begins."""
    text = "\n".join(text.rstrip().splitlines())
    for found in reversed([*_BEGINNING.finditer(text)]):
        try:
            value, end = _DECODER.raw_decode(text, found.end())
        except ValueError:
            continue
        if end == len(text):
            return value
    return None


def _numbers(value: object, prefix: str = "") -> dict[str, float]:
    """The numbers of an object by name, those inside of others as ``outer.inner``."""
    made: dict[str, float] = {}
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict):
            made |= _numbers(item, f"{prefix}{key}.")
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            made[f"{prefix}{key}"] = item
    return made


def command_evaluator(
    command: str, environment: Mapping[str, str] | None = None, *, metric: str | None = None
) -> Evaluate:
    """An evaluator that runs a command, without a shell, and reads the score that it prints.

    ``{checkpoint}`` and ``{task}`` are replaced in every word. It gets `environment`, or this
    process's; `metric` as in `read_score`. Raises UsageError where there is no ``{checkpoint}``.
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
        return _run(filled, task, environment, metric)

    return evaluate


def _run(
    words: list[str], task: str, environment: Mapping[str, str] | None, metric: str | None
) -> float:
    try:
        done = subprocess.run(words, capture_output=True, check=False, env=environment)
    except FileNotFoundError:
        raise MissingError(f"--evaluate: {words[0]}: no such command") from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.E2BIG):
            raise UsageError(f"--evaluate: {words[0]}: {error.strerror or error}") from None
        found = shutil.which(words[0]) or words[0]
        raise wrap_os_error(error, found, "starting what --evaluate names") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        last = f": {said[-1][:200]}" if said else ""
        raise UsageError(f"--evaluate: the command ended with {done.returncode} on {task}{last}")
    try:
        return read_score(done.stdout.decode(errors="replace"), metric)
    except UsageError as error:
        raise UsageError(f"--evaluate: for {task} the command {error}") from None


def checked_score(evaluate: Evaluate, checkpoint: Path, task: str) -> float:
    """The score of a checkpoint. Raises UsageError where it is no finite number."""
    score = evaluate(checkpoint, task)
    number = not isinstance(score, bool) and isinstance(score, (int, float))
    if not number or not abs(score) <= MOST_SCORE:
        said = f"{score!r:.60}, not a finite number below {MOST_SCORE:g}"
        raise UsageError(f"the evaluation of {task} gave {said}")
    return float(score)


def score_retrieved(
    bank: StrPath,
    task: str,
    coefficient: float | None,
    evaluate: Evaluate,
    run: RunOptions,
    *,
    base: StrPath | None,
    fingerprint: bytes,
) -> tuple[float, float]:
    """(score, λ) of a task retrieved at λ (None: its own) into a folder that goes afterwards.

    Raises MismatchError where the bank is another than that with this fingerprint.
    """
    options = UnpackOptions(coefficient=coefficient, saturate=True)
    with passing_folder() as folder:
        report = unpack(bank, [task], folder / "retrieved", options, run, base=base)[0]
        require_same(bank, fingerprint, _SCORED)
        return checked_score(evaluate, Path(report.path), task), report.coefficient
