"""What a shell is offered for the word under the cursor: tasks and groups of the bank at hand.

A bank's manifest is read here by itself, without NumPy: a shell waits for the answer. What is no
bank, or is damaged, offers nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

#: Set by the shells' functions that `--install-completion` writes.
ASKED = "_RANDES_COMPLETE"
#: Bytes of the longest header and manifest that are read while a shell waits.
_MOST = 2**26


def asked_words() -> list[str]:
    """The words before the cursor, without the program's name; some may be half."""
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    import shlex

    try:
        return shlex.split(line)[1:]
    except ValueError:  # a quote is open
        return line.split()[1:]


def banks(incomplete: str) -> list[str]:
    """Banks by the names that they usually have; where none fits, a shell offers all files."""
    folder, slash, _ = incomplete.rpartition("/")
    try:
        names = sorted(os.listdir(os.path.expanduser(folder + slash) or "."))  # noqa: PTH111, PTH208
    except OSError:
        return []
    found = [f"{folder}{slash}{name}" for name in names if name.endswith(".randes")]
    return [name for name in found if name.startswith(incomplete)]


def tasks(incomplete: str) -> list[str]:
    """Names of tasks that are not on the line yet."""
    words = asked_words()
    there = {word for word in words if word != incomplete}
    found = [str(task.get("name")) for task in _manifest(words).get("tasks", ())]
    return [name for name in found if name.startswith(incomplete) and name not in there]


def named(incomplete: str) -> list[str]:
    """``NAME=`` of each task, to be followed by a path."""
    if "=" in incomplete:
        return []
    return [f"{name}=" for name in tasks(incomplete)]


def grouped(incomplete: str) -> list[str]:
    """``TASK@GROUP`` with every group of the bank, once the ``@`` is there."""
    path, at, number = incomplete.rpartition("@")
    groups = _manifest(asked_words()).get("groups", 0)
    if not at or not isinstance(groups, int):
        return []
    found = range(min(groups, 1000))
    return [f"{path}@{group}" for group in found if str(group).startswith(number)]


def words_of(*choices: str) -> Callable[[str], list[str]]:
    """An option's choices, where its values are free text."""

    def offer(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return offer


def _manifest(words: Sequence[str]) -> dict[str, Any]:
    """The manifest of the first word that is a bank; empty where none is."""
    for word in words[1:]:
        try:
            found = _read_manifest(os.path.expanduser(word))  # noqa: PTH111
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _read_manifest(path: str) -> Any:
    """The tensor `manifest` of a safetensors file, as JSON. Raises OSError and ValueError."""
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes a tenth of the time that there is
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST:
            return None
        header = file.read(length)
        place = re.search(rb'"manifest":(\{[^{}]*\})', header)
        start, end = json.loads(place[1] if place else b"{}")["data_offsets"]
        if not 0 <= start <= end <= start + _MOST:
            return None
        file.seek(8 + length + start)
        return json.loads(file.read(end - start))
