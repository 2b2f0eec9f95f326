"""A job on a bank in shards, and what it may leave: the old bank or the new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.shards.conftest import everything

Files = tuple[bytes, dict[str, bytes]]


class Stage:
    """A job on a bank in shards, and its files before and after it."""

    def __init__(self, bank: Path, job: Callable[[], object]) -> None:
        self.bank, self.job = bank, job
        self.before = everything(bank)
        job()
        self.after = everything(bank)

    def reset(self) -> None:
        """What was there before the job, and nothing else."""
        for path in self.bank.with_name(f"{self.bank.name}.d").iterdir():
            path.unlink()
        for path in self.bank.parent.glob(".bank.randes*"):
            path.unlink()
        self.bank.write_bytes(self.before[0])
        for name, data in self.before[1].items():
            (self.bank.parent / "bank.randes.d" / name).write_bytes(data)

    def is_old_or_new(self) -> bool:
        """Whether one of the two is there, whole; says whether it is the new one."""
        index, files = everything(self.bank)
        assert index in (self.before[0], self.after[0])
        named = self.before if index == self.before[0] else self.after
        assert named[1].items() <= files.items(), "a shard that the index names"
        return named is self.after
