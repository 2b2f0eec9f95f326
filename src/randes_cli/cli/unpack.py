"""randes unpack"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from randes_cli.cli import complete
from randes_cli.cli import options as o
from randes_cli.cli.output import say
from randes_cli.cli.panels import COMES_OUT, argument, option, switch
from randes_cli.cli.talk import Talk
from randes_cli.cli.words import no_task_said, run_options, shard_size
from randes_cli.errors import UsageError, counted, first_of, some_of
from randes_cli.views.text import human

if TYPE_CHECKING:
    from randes_cli.read.unpack import UnpackReport

Names = Annotated[o.Words, argument("[TASK]...", "Tasks to write.", complete.tasks)]
Everything = Annotated[bool, switch(None, "Write every task.", "--all")]
Out = Annotated[
    o.Word,
    o.output(
        COMES_OUT,
        "PATH",
        "A .safetensors file, or a folder, here or in a store (default: here).",
    ),
]
Coefficient = Annotated[
    float | None, option(COMES_OUT, "X", "λ in place of the task's own.", "--lambda")
]
DtypeName = Annotated[
    o.Word,
    option(
        COMES_OUT,
        "NAME",
        "Dtype of all floating-point tensors, as BF16 or bfloat16.",
        offer=complete.words_of("float32", "float16", "bfloat16", "float64"),
    ),
]
ShardSize = Annotated[o.Word, option(COMES_OUT, "SIZE", "Most bytes of one output file, as 5GB.")]
Saturate = Annotated[
    bool, switch(COMES_OUT, "Clip values beyond the dtype's range, and count.", "--saturate")
]


def unpack(
    bank: o.BankName,
    names: Names = None,
    task: o.NamedTasks = None,
    everything: Everything = False,
    out: Out = None,
    coefficient: Coefficient = None,
    dtype: DtypeName = None,
    max_shard_size: ShardSize = None,
    saturate: Saturate = False,
    safetensors_only: o.WeightsOut = False,
    trust_remote_code_files: o.CodeOut = False,
    base: o.BaseOption = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    engine: o.Engine = "threads",
    address: o.Address = None,
    max_memory: o.MaxMemory = None,
    device: o.Device = "auto",
    dry_run: o.DryRun = False,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write tasks of a bank as ordinary safetensors checkpoints."""
    from randes_cli import unpack as run
    from randes_cli.read.places import UnpackOptions

    chosen = [*(names or []), *(task or [])]
    if chosen and everything:
        raise UsageError("--all writes every task: name none beside it")
    if not chosen and not everything:
        raise no_task_said(bank, ", or --all")
    talk = Talk(json=json, quiet=quiet, dry_run=dry_run)
    options = UnpackOptions(
        coefficient=coefficient,
        dtype=dtype,
        shard_bytes=shard_size(max_shard_size),
        saturate=saturate,
        force=force,
        safetensors_only=safetensors_only,
        trust_remote_code_files=trust_remote_code_files,
    )
    how = run_options(
        threads, max_memory, device, allow_pickle=allow_pickle, engine=engine, address=address
    )
    names = None if everything else chosen
    with talk.progress() as progress:
        reports = run(bank, names, out, options, how, base=base, dry_run=dry_run, progress=progress)
    for report in () if json else reports:
        say(_line(report), quiet=quiet)
    total = sum(report.bytes for report in reports)
    notes = [*(note for report in reports for note in _notes(report)), *_unsure(reports)]
    read = sum(report.read_bytes for report in reports)
    talk.tell({"tasks": reports}, read=read, written=total, after=notes)


def _line(report: UnpackReport) -> str:
    extra = f", {counted(report.saturated, 'value')} clipped" if report.saturated else ""
    extra += f", DAMAGED: {', '.join(map(ascii, report.damaged))}" if report.damaged else ""
    size = f"{'would take ' * report.dry_run}{human(report.bytes)}"
    return f"{report.path}  {size}, λ {report.coefficient:g}{extra}"


def _notes(report: UnpackReport) -> Iterator[str]:
    if report.turned:
        yield f"{report.task}: {_turned(report.turned)}"
    for text in report.notes:
        yield f"{report.task}: {text}"


def _unsure(reports: Sequence[UnpackReport]) -> Iterator[str]:
    """Which λ are approximate, a line for each reason."""
    names: dict[str, list[str]] = {}
    for report in reports:
        for reason in filter(None, report.approximate.split("; ")):
            names.setdefault(reason, []).append(report.task)
    for reason, found in names.items():
        yield f"λ of {some_of(found, 3)} is from an approximate prediction: {reason}"


def _turned(names: Sequence[str]) -> str:
    some = first_of([*map(ascii, names)], 3)
    what = "tensor that is" if len(names) == 1 else "tensors that are"
    comes = "comes" if len(names) == 1 else "come"
    return (
        f"{len(names):,} {what} positive throughout in the base {comes} back with negative values "
        f"({some}); where they must not, pack with --exact REGEX, which keeps such tensors exactly"
    )
