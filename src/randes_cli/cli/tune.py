"""randes tune"""

from __future__ import annotations

from typing import Annotated

import typer

from randes_cli.cli import environment
from randes_cli.cli import options as o
from randes_cli.cli.output import Clock, note, print_json, print_lines, progress_bar


def tune(
    bank: o.OwnBank,
    evaluate: o.Evaluation,
    metric: o.Metric = None,
    grid: Annotated[
        str, typer.Option(help="Values of λ to try: FIRST:LAST:STEP, or A,B,C.")
    ] = "0.1:1.0:0.1",
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", help="A task to tune (default: all); repeatable.", show_default=False
        ),
    ] = None,
    uniform: Annotated[
        bool, typer.Option("--uniform", help="One λ for all: the best on average.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")
    ] = False,
    base: o.BaseOption = None,
    wait: o.Wait = 0.0,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    max_memory: o.MaxMemory = None,
    device: o.Device = "cpu",
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Find the λ at which each task scores best, and record it in the bank."""
    from randes_cli import tune as run
    from randes_cli.cli.scores import tuning_table
    from randes_cli.files.sources import own_bank
    from randes_cli.ops.scoring import command_evaluator
    from randes_cli.ops.tune import TuneOptions, parse_grid

    clock = Clock(json=json)
    options = TuneOptions(
        grid=parse_grid(grid),
        tasks=None if not task else tuple(task),
        uniform=uniform,
        resume=resume,
        label=evaluate if metric is None else f"{evaluate} --metric {metric}",
        base=base,
        wait=wait,
    )
    with progress_bar(quiet=quiet) as progress:
        report = run(
            own_bank(bank),
            command_evaluator(evaluate, environment.GIVEN, metric=metric),
            options,
            o.run_options(threads, max_memory, device, allow_pickle=allow_pickle),
            progress=progress,
        )
    if json:
        print_json(report, **clock.facts(0, report.bytes_written))
        return
    print_lines(lambda width: tuning_table(report, width), quiet=quiet)
    more = f", {report.resumed} from before" if report.resumed else ""
    note(f"{report.evaluations} evaluations{more}", quiet=quiet)
