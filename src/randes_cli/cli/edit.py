"""randes add, randes remove"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

from randes_cli.cli import complete
from randes_cli.cli import options as o
from randes_cli.cli.panels import GOES_IN, argument, option, switch
from randes_cli.cli.talk import Talk
from randes_cli.cli.words import by_task, no_task_said, run_options, shard_size
from randes_cli.errors import UsageError, counted
from randes_cli.views.text import human

if TYPE_CHECKING:
    from randes_cli.reports import EditReport

Checkpoint = Annotated[
    o.Words,
    option(
        GOES_IN,
        "[NAME=]PATH",
        "The checkpoint of a task that goes, if it moved.",
        offer=complete.named,
    ),
]
Forget = Annotated[
    bool,
    switch(
        None,
        "Drop only the record of what goes: its delta stays for good, as interference for the "
        "others, and whoever has the bank can still retrieve it.",
        "--forget",
    ),
]
Coming = Annotated[
    list[str],
    argument("[NAME=]TASK[@GROUP]...", "Fine-tuned models to add.", complete.grouped),
]
Going = Annotated[o.Words, argument("[TASK]...", "Tasks to remove.", complete.tasks)]
Replace = Annotated[
    bool, switch(None, "A task takes the place of the one of its name.", "--replace")
]


def add(
    bank: o.OwnBank,
    tasks: Coming,
    replace: Replace = False,
    checkpoint: Checkpoint = None,
    forget: Forget = False,
    base: o.BaseOption = None,
    merge_adapters: o.MergeAdapters = False,
    allow_pickle: o.AllowPickle = False,
    weights_key: o.WeightsKey = None,
    trust_remote_code_files: o.TrustCode = False,
    safetensors_only: o.SafetensorsOnly = False,
    max_shard_size: o.MaxShardSize = None,
    wait: o.Wait = 0.0,
    threads: o.Threads = 0,
    engine: o.Engine = "threads",
    address: o.Address = None,
    max_memory: o.MaxMemory = None,
    device: o.Device = "auto",
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Add tasks to a bank; the others stay as they are."""
    from randes_cli import add as run
    from randes_cli.files.recipe.words import task_input
    from randes_cli.files.sources import own_bank
    from randes_cli.specs import EditOptions, OpenOptions

    talk, tell = Talk(json=json, quiet=quiet, dry_run=dry_run), _teller()
    inputs = [task_input(task) for task in tasks]
    opening = OpenOptions(allow_pickle, trust_remote_code_files, safetensors_only, weights_key)
    with talk.progress() as progress:
        report = run(
            own_bank(bank),
            inputs,
            EditOptions(base, wait, dry_run, merge_adapters, opening, shard_size(max_shard_size)),
            run_options(threads, max_memory, device, engine=engine, address=address),
            replace=replace,
            checkpoints=_pairs([task.name for task in inputs], checkpoint or []),
            forget=forget,
            progress=progress,
        )
    left = {task.index for task in report.after}
    tell(talk, report, (t.name for t in report.before if forget and t.index not in left))


def remove(
    bank: o.OwnBank,
    names: Going = None,
    task: o.NamedTasks = None,
    checkpoint: Checkpoint = None,
    forget: Forget = False,
    base: o.BaseOption = None,
    allow_pickle: o.AllowPickle = False,
    max_shard_size: o.MaxShardSize = None,
    wait: o.Wait = 0.0,
    threads: o.Threads = 0,
    engine: o.Engine = "threads",
    address: o.Address = None,
    max_memory: o.MaxMemory = None,
    device: o.Device = "auto",
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Take tasks out of a bank by subtracting them, which needs their checkpoints."""
    from randes_cli import remove as run
    from randes_cli.files.sources import own_bank
    from randes_cli.specs import EditOptions, OpenOptions

    talk, tell = Talk(json=json, quiet=quiet, dry_run=dry_run), _teller()
    chosen = [*(names or []), *(task or [])]
    if not chosen:
        raise no_task_said(bank)
    with talk.progress() as progress:
        report = run(
            own_bank(bank),
            chosen,
            EditOptions(
                base,
                wait,
                dry_run,
                opening=OpenOptions(allow_pickle),
                max_shard_size=shard_size(max_shard_size),
            ),
            run_options(threads, max_memory, device, engine=engine, address=address),
            checkpoints=_pairs(chosen, checkpoint or []),
            forget=forget,
            progress=progress,
        )
    tell(talk, report, chosen if forget else ())


def _teller() -> Callable[[Talk, EditReport, Iterable[str]], None]:
    """Says what an edit did, and which tasks it only forgot.

    Made before the edit: nothing is loaded, and so nothing can fail, after its commit.
    """
    from randes_cli.cli.render.packed import adapter_line, room_line, task_notes
    from randes_cli.cli.render.tables import edit_table
    from randes_cli.cli.render.verdict import warning_lines

    def tell(talk: Talk, report: EditReport, forgotten: Iterable[str]) -> None:
        names = ", ".join(forgotten)
        forgot, is_gone = ("would forget", "goes") if report.dry_run else ("forgot", "is gone")
        words = (
            f"{forgot} {names}: the record alone {is_gone}, what was added stays as interference, "
            "and whoever has the bank can still retrieve it; to be rid of it, pack anew, or remove "
            "it with its checkpoint from an older bank"
        )
        came = {task.index for task in report.after} - {task.index for task in report.before}
        talk.tell(
            report,
            lambda width: [
                *adapter_line(report, len(came)),
                *edit_table(report, width),
                *room_line(report),
            ],
            read=report.read_bytes,
            written=report.bytes_after,
            before=[*report.notes, *task_notes(report)],
            after=[
                *warning_lines(report.after),
                *report.unsuited,
                *([words] if names else []),
                _sizes(report),
            ],
        )

    return tell


def _sizes(report: EditReport) -> str:
    """What a bank came to, or would come to."""
    would = "would take " if report.dry_run else ""
    tasks = counted(len(report.after), "task")
    sizes = f"{human(report.bytes_before)} → {human(report.bytes_after)}"
    more = f"; reads {human(report.read_bytes)} of checkpoints" if report.dry_run else ""
    return f"{PurePath(report.bank).name}: {would}{sizes}, {tasks}{more}"


def _pairs(task: list[str], checkpoint: list[str]) -> dict[str, str]:
    """Checkpoints by task: ``NAME=PATH``, or ``PATH`` where one task goes."""
    pairs = []
    for text in checkpoint:
        name, equals, source = text.partition("=")
        if equals and name in task:
            pairs.append((name, source))
        elif len(task) == 1:
            pairs.append((task[0], text))
        else:
            raise UsageError(f"--checkpoint {text!r}: say NAME=PATH, with a task that goes")
    return by_task(pairs, "--checkpoint")
