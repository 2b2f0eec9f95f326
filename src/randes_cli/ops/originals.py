"""Original checkpoints of a bank's tasks, opened as tasks whose deltas can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from randes_cli.errors import MismatchError, UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.checkpoint import open_checkpoint
from randes_cli.ops.retrieve import Retrieval, find_task
from randes_cli.ops.superpose import Participant
from randes_cli.plan import Unit, fit_task, plan_units


def units_by_name(bank: BankFile) -> dict[str, Unit]:
    """The unit of every superposed tensor."""
    units = plan_units(bank.manifest.base.tensors, bank.manifest.transform)
    return {name: unit for unit in units for name in unit.names}


@contextmanager
def open_originals(
    bank: BankFile, originals: Sequence[tuple[str, str]]
) -> Iterator[list[Participant]]:
    """The checkpoints of (task, source) pairs as participants.

    Raises UsageError for a task named twice, MissingError for one that is not in the bank,
    MismatchError for a checkpoint with other tensors than the task.
    """
    names = [name for name, _ in originals]
    if len(set(names)) != len(names):
        raise UsageError("--against: names a task twice")
    unit_of: Mapping[str, Unit] = units_by_name(bank)
    base = {tensor.name: tensor for tensor in bank.manifest.base.tensors}
    with ExitStack() as stack:
        made = []
        for name, source in originals:
            task = find_task(bank, name)
            checkpoint = stack.enter_context(open_checkpoint(source))
            if checkpoint.tensors != Retrieval(bank, None, task).tensors:
                raise MismatchError(f"{source}: has other tensors than task {name}")
            fit = fit_task(base, checkpoint.tensors, unit_of)
            made.append(Participant(task.name, task.index, task.seed, checkpoint, fit))
        yield made
