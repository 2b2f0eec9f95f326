"""randes evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from randes_cli.cli import environment
from randes_cli.cli import options as o
from randes_cli.cli.output import Clock, note, plain, print_json, print_lines, progress_bar


def evaluate(
    bank: o.BankName,
    evaluate: o.Evaluation,
    metric: o.Metric = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", help="A task to score (default: all); repeatable.", show_default=False
        ),
    ] = None,
    original: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CHECKPOINT",
            help="A task's original checkpoint, if it moved; repeatable.",
            show_default=False,
        ),
    ] = None,
    coefficient: Annotated[
        float | None,
        typer.Option("--lambda", help="λ in place of each task's own.", show_default=False),
    ] = None,
    base: o.BaseOption = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table as CSV.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the table as Markdown.", show_default=False)
    ] = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    max_memory: o.MaxMemory = None,
    device: o.Device = "cpu",
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Score every task as retrieved, beside its original checkpoint and the base."""
    from randes_cli import evaluate as run
    from randes_cli.cli.scores import score_table, scores_as_csv, scores_as_markdown
    from randes_cli.errors import UsageError
    from randes_cli.files.atomic import check_target, write_whole
    from randes_cli.files.guard import note_sources
    from randes_cli.ops.scoring import command_evaluator

    originals = o.by_task(o.named_checkpoints(original or [], "--original"), "--original")
    note_sources([bank, base, *originals.values()])
    if csv is not None and csv == markdown:
        raise UsageError(f"{csv}: named for both --csv and --markdown")
    for path in (csv, markdown):
        if path is not None:
            check_target(path, force=force)
    clock = Clock(json=json)
    with progress_bar(quiet=quiet) as progress:
        report = run(
            bank,
            command_evaluator(evaluate, environment.GIVEN, metric=metric),
            o.run_options(threads, max_memory, device, allow_pickle=allow_pickle),
            tasks=task,
            originals=originals,
            base=base,
            coefficient=coefficient,
            progress=progress,
        )
    if csv is not None:
        write_whole(csv, scores_as_csv(report).encode(), force=force)
    if markdown is not None:
        write_whole(markdown, scores_as_markdown(report).encode(), force=force)
    if json:
        print_json(report, mean=plain(report.mean), **clock.facts(0, 0))
        return
    print_lines(lambda width: score_table(report, width))
    missing = [score.task for score in report.tasks if score.original is None]
    if missing:
        note(
            f"no original found for {', '.join(missing)}; say --original NAME=CHECKPOINT",
            quiet=quiet,
        )
