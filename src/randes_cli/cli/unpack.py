"""randes unpack"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import Clock, human, note, print_json, progress_bar, say
from randes_cli.errors import UsageError


def unpack(
    bank: o.BankName,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASK]...", help="Tasks to write.", show_default=False),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", help="The same, as an option; may be repeated.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Write every task.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A .safetensors file, or a folder (default: here).",
            show_default=False,
        ),
    ] = None,
    coefficient: Annotated[
        float | None,
        typer.Option("--lambda", help="λ in place of the task's own.", show_default=False),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Dtype of all floating-point tensors, as BF16 or bfloat16.", show_default=False
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(help="Most bytes of one output file, as 5GB.", show_default=False),
    ] = None,
    saturate: Annotated[
        bool, typer.Option("--saturate", help="Clip values beyond the dtype's range, and count.")
    ] = False,
    safetensors_only: o.SafetensorsOnly = False,
    trust_remote_code_files: o.TrustCode = False,
    base: o.BaseOption = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    max_memory: o.MaxMemory = None,
    device: o.Device = "cpu",
    dry_run: o.DryRun = False,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write tasks of a bank as ordinary safetensors checkpoints."""
    from randes_cli import unpack as run
    from randes_cli.files.writer import parse_size
    from randes_cli.read.places import UnpackOptions

    chosen = [*(names or []), *(task or [])]
    if bool(chosen) == everything:
        raise UsageError("say --task NAME (or several), or --all")
    clock = Clock(json=json)
    options = UnpackOptions(
        coefficient=coefficient,
        dtype=dtype,
        shard_bytes=None if max_shard_size is None else parse_size(max_shard_size),
        saturate=saturate,
        force=force,
        safetensors_only=safetensors_only,
        trust_remote_code_files=trust_remote_code_files,
    )
    with progress_bar(quiet=quiet) as progress:
        reports = run(
            bank,
            None if everything else chosen,
            out,
            options,
            o.run_options(threads, max_memory, device, allow_pickle=allow_pickle),
            base=base,
            dry_run=dry_run,
            progress=progress,
        )
    total = sum(report.bytes for report in reports)
    written = 0 if dry_run else total
    if json:
        print_json({"tasks": reports}, **clock.facts(total, written))
        return
    for report in reports:
        extra = f", {report.saturated} values clipped" if report.saturated else ""
        extra += f", DAMAGED: {', '.join(map(ascii, report.damaged))}" if report.damaged else ""
        say(f"{report.path}  {human(report.bytes)}, λ {report.coefficient:g}{extra}", quiet=quiet)
        if report.turned:
            note(f"{report.task}: {_turned(report.turned)}", quiet=quiet)
        for text in report.notes:
            note(f"{report.task}: {text}", quiet=quiet)
    note(clock.sentence(total, written), quiet=quiet or dry_run)


def _turned(names: Sequence[str]) -> str:
    some = ", ".join(map(ascii, names[:3])) + (" …" if len(names) > 3 else "")
    return (
        f"{len(names)} tensors that are positive throughout in the base come back with negative "
        f"values ({some}); where they must not, pack with --rest own and --targets that leave "
        "them out"
    )
