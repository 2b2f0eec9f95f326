"""What is known of a new bank before a byte of it is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from randes_cli.build.inputs import Inputs, open_inputs, participants
from randes_cli.build.strips import Participant
from randes_cli.errors import UsageError
from randes_cli.plan import Unit, choose_targets, plan_units, sealable
from randes_cli.specs import PackOptions, RunOptions, TaskInput
from randes_cli.workers import thread_count


@dataclass(frozen=True)
class Setup:
    """The inputs, opened, and what follows from them and the options.

    `seal_bits` are the bits that the bank is sealed to once it is packed, or None.
    """

    inputs: Inputs
    participants: list[Participant]
    options: PackOptions
    run: RunOptions
    units: list[Unit]
    groups: int
    capacity: int
    threads: int
    seal_bits: int | None


def prepare(
    stack: ExitStack,
    base: str | None,
    tasks: Sequence[TaskInput],
    options: PackOptions,
    run: RunOptions,
    *,
    dry_run: bool,
) -> Setup:
    """Open the inputs (until `stack` closes) and settle units, groups and capacity.

    Fewer bits than 8 are packed at 16 and sealed afterwards.
    """
    seal_bits = options.bits if options.bits < 8 else None
    if seal_bits is not None:
        options = replace(options, bits=16)
    inputs = open_inputs(
        stack,
        base,
        tasks,
        options,
        keep_going=dry_run and len(tasks) > 1,
        fetch=not dry_run,
    )
    tensors = list(inputs.base.tensors.values())
    if seal_bits is not None and tensors and not any(map(sealable, tensors)):
        raise UsageError(
            f"--bits {seal_bits}: no tensor here is wide enough for the scales that fewer than 8 "
            "bits need; say --bits 8 or 16"
        )
    options = replace(options, transform=choose_targets(tensors, options.transform))
    units = plan_units(tensors, options.transform)
    names = [name for unit in units for name in unit.names]
    pairs = participants(inputs.base, inputs.tasks, names, options)
    held = Counter(participant.group for _, participant in pairs)
    return Setup(
        replace(inputs, tasks=[opened for opened, _ in pairs]),
        [participant for _, participant in pairs],
        options,
        run,
        units,
        max(options.groups, 1 + max(held)),
        options.capacity or max(16, 2 * max(held.values())),
        thread_count(run.threads, tensors),
        seal_bits,
    )
