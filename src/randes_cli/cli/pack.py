"""randes pack"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import Clock, note, print_json, print_lines, progress_bar
from randes_cli.specs import (
    PRESETS,
    BaseStorage,
    PackOptions,
    Rest,
    Shuffle,
    Signs,
    Transform,
)

Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)  # type: ignore[misc]

DEFAULT_PRESET = Preset("two-sided")


class Where(str, Enum):
    """Where the base goes."""

    embed = "embed"
    reference = "reference"


def pack(
    base: Annotated[
        str,
        typer.Argument(
            help="The base model: a file, a folder or a Hub id; not needed with --adapters.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str, typer.Option("--output", "-o", help="The bank to write.", show_default=False)
    ],
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]TASK[@GROUP]...",
            help="Models fine-tuned from it, each with a name or named after its file.",
            show_default=False,
        ),
    ] = None,
    transform: Annotated[
        Preset, typer.Option(help="How deltas are made orthogonal before they are summed.")
    ] = DEFAULT_PRESET,
    shuffle: Annotated[
        Shuffle | None, typer.Option(help="In place of the preset's shuffle.", show_default=False)
    ] = None,
    signs: Annotated[
        Signs | None, typer.Option(help="In place of the preset's signs.", show_default=False)
    ] = None,
    bits: Annotated[
        str,
        typer.Option(
            help="Bits of a superposed element: 16 or 8; 4 to 1 are read-only. 1/4 is 1 bit on a "
            "quarter of the elements."
        ),
    ] = "16",
    share: Annotated[
        str | None,
        typer.Option(
            metavar="1/2|1/4|1/8",
            help="Superpose only this share of each matrix: as much smaller, and as much noisier.",
            show_default=False,
        ),
    ] = None,
    groups: Annotated[
        int,
        typer.Option(help="Superpositions side by side: tasks disturb those of their own alone."),
    ] = 1,
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE|RATIO",
            help="Choose bits, groups and share: the best predicted within 500MB, or 1.1 times "
            "the base.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Choose them for the smallest bank predicted to keep 99% of the gain, say.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Bank seed; a task's is this plus its index.")] = 42,
    capacity: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tasks that 8 bits must have room for (twice those packed, 16 at least).",
            show_default=False,
        ),
    ] = None,
    targets: Annotated[
        str, typer.Option(help="What is transformed: all, attn, mlp or a regular expression.")
    ] = "all",
    every: Annotated[int, typer.Option(help="Transform every k-th target layer only.")] = 1,
    rest: Annotated[
        Rest, typer.Option(help="Tensors outside the targets: summed as they are, or kept.")
    ] = Rest.sum,
    base_storage: Annotated[
        Where, typer.Option("--base", help="Keep the base inside the bank, or only refer to it.")
    ] = Where.embed,
    adapters: Annotated[
        bool,
        typer.Option(
            "--adapters",
            help="LoRA adapters stay adapters (with a base they are merged into it else). Of "
            "arguments that are all adapters none is the base.",
        ),
    ] = False,
    merge_adapters: o.MergeAdapters = False,
    allow_pickle: o.AllowPickle = False,
    weights_key: o.WeightsKey = None,
    trust_remote_code_files: o.TrustCode = False,
    safetensors_only: o.SafetensorsOnly = False,
    max_shard_size: o.MaxShardSize = None,
    threads: o.Threads = 0,
    max_memory: o.MaxMemory = None,
    device: o.Device = "cpu",
    dry_run: o.DryRun = False,
    full: Annotated[bool, typer.Option("--full", help="Show every task and every note.")] = False,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Pack a base and its fine-tunes into one bank."""
    from randes_cli import pack as run
    from randes_cli.cli.render.packed import pack_notes, pack_table
    from randes_cli.core.verdict import sentences

    clock = Clock(json=json)
    width, part = o.bits_and_share(bits, share)
    preset = Transform.from_preset(transform.value)
    chosen = PackOptions(
        transform=Transform(shuffle or preset.shuffle, signs or preset.signs, targets, every, rest),
        bits=width,
        share=part,
        seed=seed,
        groups=groups,
        fit=fit,
        keep=keep,
        base_storage=BaseStorage(base_storage.value),
        capacity=capacity,
        adapters=adapters,
        merge_adapters=merge_adapters,
        opening=o.opening(allow_pickle, trust_remote_code_files, safetensors_only, weights_key),
        max_shard_size=o.shard_size(max_shard_size),
    )
    with progress_bar(quiet=quiet) as progress:
        report = run(
            None if adapters else base,
            [o.task_input(task) for task in ([base] * adapters + (tasks or []))],
            out,
            chosen,
            o.run_options(threads, max_memory, device),
            force=force,
            dry_run=dry_run,
            progress=progress,
        )
    written = 0 if dry_run else report.bank_bytes
    if json:
        facts = clock.facts(report.read_bytes, written)
        print_json(report, expect=sentences(report.tasks), **facts)
        return
    for line in pack_notes(report, full=full):
        note(line, quiet=quiet)
    print_lines(lambda width: pack_table(report, width, full=full), quiet=quiet)
    if report.advice:
        note(report.advice, quiet=quiet)
    note(clock.sentence(report.read_bytes, written), quiet=quiet or dry_run)
    if report.saving:
        note(report.saving, quiet=quiet)
