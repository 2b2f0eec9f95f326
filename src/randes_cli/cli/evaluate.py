"""randes evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from randes_cli.cli import complete, environment
from randes_cli.cli import options as o
from randes_cli.cli.output import plain
from randes_cli.cli.panels import COMES_OUT, GOES_IN, option
from randes_cli.cli.talk import Talk
from randes_cli.cli.words import check_originals, originals, run_options
from randes_cli.errors import UsageError

Against = Annotated[
    o.Words,
    option(
        GOES_IN,
        "NAME=PATH",
        "A task's original checkpoint, if it moved; repeatable.",
        *("--against", "--original"),  # the second as it was named before
        offer=complete.named,
    ),
]
Coefficient = Annotated[
    float | None, option(None, "X", "λ in place of each task's own.", "--lambda")
]
_SHOWN = "Write the table as {} (-: print it so)."
Csv = Annotated[Path | None, option(COMES_OUT, "PATH", _SHOWN.format("CSV"))]
Markdown = Annotated[Path | None, option(COMES_OUT, "PATH", _SHOWN.format("Markdown"))]
#: Standard output.
_PRINTED = Path("-")


def evaluate(
    bank: o.BankName,
    evaluate: o.Evaluation,
    metric: o.Metric = None,
    task: o.Tasks = None,
    against: Against = None,
    coefficient: Coefficient = None,
    base: o.BaseOption = None,
    csv: Csv = None,
    markdown: Markdown = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    max_memory: o.MaxMemory = None,
    device: o.Device = "auto",
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Score every task as retrieved, beside its original checkpoint and the base."""
    from randes_cli import evaluate as run
    from randes_cli.cli.scores import score_table, scores_as_csv, scores_as_markdown
    from randes_cli.files.atomic import write_whole
    from randes_cli.files.local.guard import note_sources
    from randes_cli.ops.scoring import command_evaluator

    known = originals(against)
    note_sources([bank, base, *known.values()])
    _check_targets(csv, markdown, force, json)
    talk = Talk(json=json, quiet=quiet)
    with talk.progress() as progress:
        report = run(
            bank,
            command_evaluator(evaluate, environment.GIVEN, metric=metric),
            run_options(threads, max_memory, device, allow_pickle=allow_pickle),
            tasks=task,
            originals=known,
            base=base,
            coefficient=coefficient,
            progress=progress,
        )
    for path, made in ((csv, scores_as_csv), (markdown, scores_as_markdown)):
        if path == _PRINTED:
            print(made(report), end="")
        elif path is not None:
            write_whole(path, made(report).encode(), force=force)
    missing = ", ".join(score.task for score in report.tasks if score.original is None)
    words = f"no original found for {missing}; say --against NAME=CHECKPOINT"
    talk.tell(
        report,
        None if _PRINTED in (csv, markdown) else lambda width: score_table(report, width),
        after=[words] if missing else [],
        wanted=True,
        mean=plain(report.mean),
    )
    check_originals(f"{bank}: scored, but beside", report.strange, "")


def _check_targets(csv: Path | None, markdown: Path | None, force: bool, json: bool) -> None:
    """Raise UsageError where a table cannot be written, before hours of scoring."""
    from randes_cli.files.atomic import check_target

    if csv is not None and csv == markdown:
        raise UsageError(f"{csv}: named for both --csv and --markdown")
    if json and _PRINTED in (csv, markdown):
        raise UsageError("-: is standard output, where --json goes; name a file for the table")
    for path in (csv, markdown):
        if path not in (None, _PRINTED):
            check_target(path, force=force)
