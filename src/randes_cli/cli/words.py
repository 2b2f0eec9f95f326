"""The command line's words as the records and mappings that verbs take."""

from __future__ import annotations

from collections.abc import Iterable

from randes_cli.errors import CheckFailed, UsageError, counted
from randes_cli.limits import parse_size
from randes_cli.specs import RunOptions

#: Bytes below which nobody wants a file of a shard: the header alone has as many.
_LEAST_SHARD = 1000


def run_options(
    threads: int,
    max_memory: str | None,
    device: str = "auto",
    *,
    allow_pickle: bool = False,
    engine: str = "threads",
    address: str | None = None,
) -> RunOptions:
    """How a job runs, from the command line's words."""
    return RunOptions(
        threads=threads,
        max_memory=None if max_memory is None else parse_size(max_memory),
        device=device,
        allow_pickle=allow_pickle,
        engine=engine,
        address=address,
    )


def shard_size(text: str | None) -> int | None:
    """Bytes of ``--max-shard-size``. Raises UsageError, also where the unit seems forgotten."""
    if text is None:
        return None
    size = parse_size(text)
    if size < _LEAST_SHARD:
        meant = f"{text.strip()}GB" if text.strip().isdigit() else "5GB"
        raise UsageError(
            f"--max-shard-size {text}: {counted(size, 'byte')}, less than any shard has; did you "
            f"mean {meant}?"
        )
    return size


def originals(texts: list[str] | None) -> dict[str, str]:
    """Checkpoints by task, from the words of ``--against``. Raises UsageError."""
    pairs = []
    for text in texts or ():
        name, _, source = text.partition("=")
        if not name or not source:
            raise UsageError(f"--against {text!r}: say NAME=CHECKPOINT")
        pairs.append((name, source))
    return by_task(pairs, "--against")


def by_task(pairs: list[tuple[str, str]], where: str) -> dict[str, str]:
    """(task, checkpoint) pairs as a mapping. Raises UsageError for a task named twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise UsageError(f"{where}: names a task twice")
    return made


def check_originals(what: str, strange: Iterable[str], given: str = "--against has ") -> None:
    """Raise CheckFailed where other checkpoints were given than were packed as some tasks."""
    names = ", ".join(strange)
    if names:
        raise CheckFailed(
            f"{what} {given}other checkpoints than were packed as {names} (their "
            "fingerprints differ)"
        )


def no_task_said(bank: str, more: str = "") -> UsageError:
    """What to say where no task is named: how, and which tasks the bank has."""
    from randes_cli.files.sources import open_bank

    with open_bank(bank) as opened:
        has = opened.some_tasks()
    return UsageError(f"say --task NAME (or NAME alone, several too){more}; {bank} has {has}")
