"""Options that commands share."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from randes_cli.errors import UsageError
from randes_cli.specs import OpenOptions, RunOptions, TaskInput

#: Endings of pickles that are no part of a task's name.
_PICKLES = (".bin", ".tar", ".pt", ".pth", ".ckpt", ".pkl")

BankName = Annotated[
    str, typer.Argument(metavar="BANK", help="The bank: a file, or a Hub id.", show_default=False)
]
OwnBank = Annotated[
    str, typer.Argument(metavar="BANK", help="The bank to change: a file.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, no talk; what writes says nothing.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Threads = Annotated[
    int, typer.Option(min=0, help="Worker threads (0: one per core).", show_default=False)
]
MaxMemory = Annotated[
    str | None,
    typer.Option(help="Most memory for buffers, as 256MiB.", show_default=False),
]
Device = Annotated[
    str, typer.Option(help="Where to compute: cpu, cpu-torch, cuda or mps. Same bytes on all.")
]
MaxShardSize = Annotated[
    str | None,
    typer.Option(
        "--max-shard-size",
        metavar="SIZE",
        help="Write the bank as an index and shards beside it, of at most so many bytes, as 5GB "
        "(banks above 50 GB are anyway).",
        show_default=False,
    ),
]
MergeAdapters = Annotated[
    bool,
    typer.Option(
        "--merge-adapters",
        help="LoRA adapters become full models, base + scaling·B·A (as they do with a base).",
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option("--allow-pickle", help="Read pickles (.bin, .pt …), weights only: no code runs."),
]
WeightsKey = Annotated[
    str | None,
    typer.Option(
        "--weights-key",
        metavar="KEY",
        help="Where in a pickle the weights are, as model_ema.",
        show_default=False,
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-remote-code-files", help="Let Python files of a folder travel along."),
]
SafetensorsOnly = Annotated[
    bool,
    typer.Option("--safetensors-only", help="Weights alone: no config, no tokenizer."),
]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", help="The base, where it lies outside and moved.", show_default=False),
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=CHECKPOINT",
        help="An original checkpoint of a task to measure against; may be repeated.",
        show_default=False,
    ),
]
Evaluation = Annotated[
    str,
    typer.Option(
        "--evaluate",
        metavar="CMD",
        help="Prints a score, higher being better, for {checkpoint} and {task}: its last line is "
        "a number, NAME: number, or JSON.",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Which number is the score, where the command prints JSON with several.",
        show_default=False,
    ),
]
Wait = Annotated[float, typer.Option(help="Seconds to wait while another process edits the bank.")]


def run_options(
    threads: int, max_memory: str | None, device: str = "cpu", *, allow_pickle: bool = False
) -> RunOptions:
    """How a job runs, from the command line's words."""
    memory = None
    if max_memory is not None:
        from randes_cli.files.writer import parse_size

        memory = parse_size(max_memory)
    return RunOptions(threads=threads, max_memory=memory, device=device, allow_pickle=allow_pickle)


def shard_size(text: str | None) -> int | None:
    """Bytes of ``--max-shard-size``. Raises UsageError."""
    if text is None:
        return None
    from randes_cli.files.writer import parse_size

    return parse_size(text)


def opening(
    allow_pickle: bool, trust_code: bool, safetensors_only: bool, weights_key: str | None = None
) -> OpenOptions:
    """What may be read of checkpoints, from the command line's words."""
    return OpenOptions(allow_pickle, trust_code, safetensors_only, weights_key)


def originals(texts: list[str] | None) -> dict[str, str]:
    """Checkpoints by task, of --against. Raises UsageError."""
    return by_task(named_checkpoints(texts or [], "--against"), "--against")


def by_task(pairs: list[tuple[str, str]], where: str) -> dict[str, str]:
    """(task, checkpoint) pairs as a mapping. Raises UsageError for a task named twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise UsageError(f"{where}: names a task twice")
    return made


_SHARE = re.compile("1(?:/([0-9]{1,2}))?")


def bits_and_share(bits: str, share: str | None) -> tuple[int, int]:
    """Bits of an element and the m of a share, from ``--bits`` and ``--share``.

    ``--bits 1/4`` is one bit on a quarter. Raises UsageError.
    """
    if "/" in bits:
        if share is not None:
            raise UsageError(f"--bits {bits} says the share: leave --share out")
        bits, share = "1", bits
    if not re.fullmatch("[0-9]{1,2}", bits):
        raise UsageError(f"--bits must be 16, 8, 4, 3, 2, 1, 1/2, 1/4 or 1/8, not {bits[:20]!a}")
    found = _SHARE.fullmatch(share or "1")
    if found is None:
        raise UsageError(f"--share must be 1, 1/2, 1/4 or 1/8, not {str(share)[:20]!a}")
    return int(bits), int(found[1] or 1)


def task_input(text: str) -> TaskInput:
    """A task from ``[NAME=]PATH[@GROUP]``; a PATH without NAME is named after its last part.

    A path that is there is taken whole, whatever is in its name. Raises UsageError for a text
    that could mean two files, and for a name without a path.
    """
    from randes_cli.files.hub_ref import parse_ref
    from randes_cli.files.location import as_place

    name, equals, source = text.partition("=")
    named = bool(equals) and "/" not in name
    if named and not (name and source):
        raise UsageError(f"{text!a}: say NAME=PATH")
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
    place = as_place(source)
    stem = place.name
    for suffix in (".safetensors.index.json", ".safetensors", ".st", *_PICKLES):
        stem = stem.removesuffix(suffix)
    whole = place.resolve().name if isinstance(place, Path) else str(place)
    return TaskInput(stem or whole, source, group=group)


def split_group(source: str) -> tuple[str, int | None]:
    """(checkpoint, group) of ``CHECKPOINT[@GROUP]``; ``org/model@1`` alone is a Hub revision."""
    path, at, number = source.rpartition("@")
    if not at or not number.isascii() or not number.isdigit() or len(number) > 7:
        return source, None
    away = "://" in path and "@" not in path.rpartition("/")[2]
    if os.path.exists(source) or not (os.path.exists(path) or "@" in path or away):
        return source, None
    return path, int(number)


def named_checkpoints(texts: list[str], option: str) -> list[tuple[str, str]]:
    """(task, checkpoint) pairs from words ``NAME=CHECKPOINT``."""
    made = []
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise UsageError(f"{option} {text!a}: say NAME=CHECKPOINT")
        made.append((name, source))
    return made
