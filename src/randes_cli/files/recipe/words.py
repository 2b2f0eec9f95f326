"""What users write for a task and for bits, on the command line and in recipes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from randes_cli.errors import UsageError
from randes_cli.files.hub.ref import COMMIT, parse_ref
from randes_cli.files.local.system import resolved
from randes_cli.files.location import as_place
from randes_cli.limits import StrPath, as_source
from randes_cli.specs import SHARES, TaskInput

#: Tasks as `pack` and `add` take them: records, or paths (``NAME=PATH`` too), or paths by name.
TaskInputs = Iterable[TaskInput | StrPath] | Mapping[str, StrPath]

#: Endings of pickles that are no part of a task's name.
_PICKLES = (".bin", ".tar", ".pt", ".pth", ".ckpt", ".pkl")

_SHARE = re.compile("1(?:/([0-9]{1,2}))?")
_NO_BITS = "--bits must be 16, 8, 4, 3, 2, 1, 1/2, 1/4 or 1/8, not {!r}"


def bits_and_share(bits: str | None, share: str | None) -> tuple[int | None, int]:
    """Bits of an element and the m of a share, from ``--bits`` and ``--share``.

    ``--bits 1/4`` is one bit on a quarter; None is left to the base. Raises UsageError.
    """
    if bits is not None and "/" in bits:
        if share is not None:
            raise UsageError(f"--bits {bits} says the share: leave --share out")
        found = _SHARE.fullmatch(bits)
        if found is None or int(found[1]) not in SHARES:
            raise UsageError(_NO_BITS.format(bits[:20]))
        bits, share = "1", bits
    if bits is not None and not re.fullmatch("[0-9]{1,2}", bits):
        raise UsageError(_NO_BITS.format(bits[:20]))
    found = _SHARE.fullmatch(share or "1")
    if found is None:
        raise UsageError(f"--share must be 1, 1/2, 1/4 or 1/8, not {str(share)[:20]!r}")
    return None if bits is None else int(bits), int(found[1] or 1)


def task_inputs(tasks: TaskInputs) -> list[TaskInput]:
    """The records of tasks. Raises UsageError for a text that names none, and for a lone path."""
    if isinstance(tasks, str | os.PathLike):
        raise UsageError(
            f"tasks: a list of paths, or paths by name, not {os.fspath(tasks)!r} alone"
        )
    if isinstance(tasks, Mapping):
        return [TaskInput(name, source) for name, source in tasks.items()]
    return [task if isinstance(task, TaskInput) else task_input(as_source(task)) for task in tasks]


def task_input(text: str) -> TaskInput:
    """A task from ``[NAME=]PATH[@GROUP]``; a PATH without NAME is named after its last part.

    A snapshot in the Hub's cache, whose last part is a commit, is named after its repository. A
    path that is there is taken whole, whatever is in its name. Raises UsageError for a text that
    could mean two files, and for a name without a path.
    """
    name, equals, source = text.partition("=")
    named = bool(equals) and "/" not in name
    if named and not (name and source):
        raise UsageError(f"{text!r}: say NAME=PATH")
    if named and os.path.exists(text):
        if os.path.exists(split_group(source)[0]):
            raise UsageError(f"{text}: both {text} and {source} are there; say NAME=PATH")
        named = False
    source, group = split_group(source if named else text)
    if named:
        return TaskInput(name, source, group=group)
    ref = parse_ref(source)
    if ref is not None:
        return TaskInput(ref.name, source, group=group)
    return TaskInput(_name_of(source), source, group=group)


def _name_of(source: str) -> str:
    """What a path is called: its last part, or the repository that the Hub's cache has there."""
    place = as_place(source)
    stem = place.name
    for suffix in (".safetensors.index.json", ".safetensors", ".st", *_PICKLES):
        stem = stem.removesuffix(suffix)
    if not isinstance(place, Path):
        return stem or str(place)
    if not stem or COMMIT.fullmatch(stem):
        whole = resolved(place)
        model, snapshots = whole.parent.parent.name, whole.parent.name
        if snapshots == "snapshots" and model.startswith("models--"):
            return model.rpartition("--")[2]
        return stem or whole.name
    return stem


def split_group(source: str) -> tuple[str, int | None]:
    """(checkpoint, group) of ``CHECKPOINT[@GROUP]``; ``org/model@1`` alone is a Hub revision."""
    path, at, number = source.rpartition("@")
    if not at or not number.isascii() or not number.isdigit() or len(number) > 7:
        return source, None
    away = "://" in path and "@" not in path.rpartition("/")[2]
    if os.path.exists(source) or not (os.path.exists(path) or "@" in path or away):
        return source, None
    return path, int(number)
