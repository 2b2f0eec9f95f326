"""The default λ of a retrieval, where neither options nor tuning say one."""

from __future__ import annotations

from randes_cli.errors import BankDamaged
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import NORMS, ROUNDED
from randes_cli.files.bank.records import TaskRecord
from randes_cli.stats.coefficients import default_lambda


def default_coefficient(
    bank: BankFile, task: TaskRecord, *, force: bool
) -> tuple[float, tuple[str, ...]]:
    """The default λ from a bank's statistics, and those of them that are damaged.

    With `force` damaged statistics give 1; without it they raise BankDamaged.
    """
    place = next(n for n, other in enumerate(bank.manifest.tasks) if other.index == task.index)
    try:
        return default_lambda(bank, place), ()
    except BankDamaged:
        keys = tuple(key for key in (NORMS, ROUNDED) if _damaged(bank, key))
        if not force:
            raise BankDamaged(
                f"{bank.path}: tensor {keys[0]!r} is damaged, so the default λ of {task.name} is "
                "not known; say --lambda 1 (or --force, which takes 1)"
            ) from None
        return 1.0, keys


def _damaged(bank: BankFile, key: str) -> bool:
    """Whether a statistics tensor is there and damaged."""
    try:
        return key in bank and bank.read_whole(key) is None
    except BankDamaged:
        return True
