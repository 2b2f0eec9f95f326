"""randes add, randes remove"""

from __future__ import annotations

from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import Clock, note, print_json, print_lines, progress_bar
from randes_cli.errors import UsageError

Checkpoint = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]PATH",
        help="The checkpoint of a task that goes, if it moved.",
        show_default=False,
    ),
]
Forget = Annotated[
    bool,
    typer.Option(
        "--forget",
        help="Drop only the record of what goes: its delta stays as interference for the others, "
        "and who kept the seed can still retrieve it.",
    ),
]


def add(
    bank: o.OwnBank,
    tasks: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]TASK[@GROUP]...", help="Fine-tuned models to add.", show_default=False
        ),
    ],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="A task takes the place of the one of its name."),
    ] = False,
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
    max_memory: o.MaxMemory = None,
    device: o.Device = "cpu",
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Add tasks to a bank; the others stay as they are."""
    from randes_cli import add as run
    from randes_cli.cli.render.tables import edit_table
    from randes_cli.cli.render.verdict import lost_lines
    from randes_cli.files.sources import own_bank
    from randes_cli.specs import EditOptions

    clock = Clock(json=json)
    inputs = [o.task_input(task) for task in tasks]
    with progress_bar(quiet=quiet) as progress:
        report = run(
            own_bank(bank),
            inputs,
            EditOptions(
                base,
                wait,
                dry_run,
                merge_adapters,
                o.opening(allow_pickle, trust_remote_code_files, safetensors_only, weights_key),
                o.shard_size(max_shard_size),
            ),
            o.run_options(threads, max_memory, device),
            replace=replace,
            checkpoints=_pairs([task.name for task in inputs], checkpoint or []),
            forget=forget,
            progress=progress,
        )
    gone = {task.index: task.name for task in report.before}
    left = {task.index for task in report.after}
    written = 0 if dry_run else report.bytes_after
    if json:
        print_json(report, **clock.facts(report.read_bytes, written))
        return
    print_lines(lambda width: edit_table(report, width), quiet=quiet)
    for line in lost_lines(report.after):
        note(line, quiet=quiet)
    if forget:
        _note_forgotten([name for index, name in gone.items() if index not in left], quiet)
    note(clock.sentence(report.read_bytes, written), quiet=quiet or dry_run)


def _note_forgotten(names: list[str], quiet: bool) -> None:
    if names:
        note(
            f"forgot {', '.join(names)}: their deltas stay in the bank as interference, and anyone "
            "who kept their seeds can still retrieve them; to take them out, remove them with "
            "their checkpoints",
            quiet=quiet,
        )


def _pairs(task: list[str], checkpoint: list[str]) -> dict[str, str]:
    """Checkpoints by task: ``NAME=PATH``, or ``PATH`` where one task goes."""
    made = {}
    for text in checkpoint:
        name, equals, source = text.partition("=")
        if equals and name in task:
            made[name] = source
        elif len(task) == 1:
            made[task[0]] = text
        else:
            raise UsageError(f"--checkpoint {text!a}: say NAME=PATH, with a task that goes")
    return made


def remove(
    bank: o.OwnBank,
    task: Annotated[
        list[str],
        typer.Option("--task", "-t", help="A task to remove; repeatable.", show_default=False),
    ],
    checkpoint: Checkpoint = None,
    forget: Forget = False,
    base: o.BaseOption = None,
    allow_pickle: o.AllowPickle = False,
    max_shard_size: o.MaxShardSize = None,
    wait: o.Wait = 0.0,
    threads: o.Threads = 0,
    max_memory: o.MaxMemory = None,
    device: o.Device = "cpu",
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Take tasks out of a bank by subtracting them, which needs their checkpoints."""
    from randes_cli import remove as run
    from randes_cli.cli.render.tables import edit_table
    from randes_cli.files.sources import own_bank
    from randes_cli.specs import EditOptions

    clock = Clock(json=json)
    with progress_bar(quiet=quiet) as progress:
        report = run(
            own_bank(bank),
            task,
            EditOptions(
                base,
                wait,
                dry_run,
                opening=o.opening(allow_pickle, False, False),
                max_shard_size=o.shard_size(max_shard_size),
            ),
            o.run_options(threads, max_memory, device),
            checkpoints=_pairs(task, checkpoint or []),
            forget=forget,
            progress=progress,
        )
    written = 0 if dry_run else report.bytes_after
    if json:
        print_json(report, **clock.facts(report.read_bytes, written))
        return
    print_lines(lambda width: edit_table(report, width), quiet=quiet)
    if forget:
        _note_forgotten(task, quiet)
    note(clock.sentence(report.read_bytes, written), quiet=quiet or dry_run)
