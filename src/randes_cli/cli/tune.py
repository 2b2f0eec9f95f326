"""randes tune"""

from __future__ import annotations

from typing import Annotated

from randes_cli.cli import environment
from randes_cli.cli import options as o
from randes_cli.cli.panels import option, switch
from randes_cli.cli.talk import Talk
from randes_cli.cli.words import run_options
from randes_cli.errors import counted

Grid = Annotated[str, option(None, "VALUES", "Values of λ to try: FIRST:LAST:STEP, or A,B,C.")]
Uniform = Annotated[bool, switch(None, "One λ for all: the best on average.", "--uniform")]
Resume = Annotated[bool, switch(None, "Go on where an interrupted run stopped.", "--resume")]


def tune(
    bank: o.OwnBank,
    evaluate: o.Evaluation,
    metric: o.Metric = None,
    grid: Grid = "0.1:1.0:0.1",
    task: o.Tasks = None,
    uniform: Uniform = False,
    resume: Resume = False,
    base: o.BaseOption = None,
    wait: o.Wait = 0.0,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    max_memory: o.MaxMemory = None,
    device: o.Device = "auto",
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

    talk = Talk(json=json, quiet=quiet)
    options = TuneOptions(
        grid=parse_grid(grid),
        tasks=None if not task else tuple(task),
        uniform=uniform,
        resume=resume,
        label=evaluate if metric is None else f"{evaluate} --metric {metric}",
        base=base,
        wait=wait,
    )
    with talk.progress() as progress:
        report = run(
            own_bank(bank),
            command_evaluator(evaluate, environment.GIVEN, metric=metric),
            options,
            run_options(threads, max_memory, device, allow_pickle=allow_pickle),
            progress=progress,
        )
    more = f", {report.resumed} from before" if report.resumed else ""
    talk.tell(
        report,
        lambda width: tuning_table(report, width),
        written=report.bytes_written,
        after=[f"{counted(report.evaluations, 'evaluation')}{more}"],
    )
