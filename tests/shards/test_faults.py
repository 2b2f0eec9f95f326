"""Kills, full disks, interruptions: the old bank in shards or the new one, and no third thing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from randes_cli import NoSpace, RandesError, verify
from tests.faults.shim import Fault, count_calls, die, die_halfway, fail_with, faulty, killed
from tests.life.models import ONE, put, take
from tests.shards.conftest import everything, sharded, shards

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


@pytest.fixture(params=["add", "remove"])
def stage(request: pytest.FixtureRequest, folder: Path) -> Stage:
    bank = sharded(folder, "whole", "single", size=100_000)
    jobs = {"add": lambda: put(bank, "half"), "remove": lambda: take(bank, "whole")}
    return Stage(bank, jobs[request.param])


@pytest.mark.parametrize("fault", [die, die_halfway], ids=["before", "halfway"])
def test_a_kill_at_any_call_leaves_one_of_two_banks(stage: Stage, fault: Fault) -> None:
    stage.reset()
    calls = count_calls(stage.job)
    seen = set()
    for at in [*range(1, calls, 5), *range(calls - 14, calls + 1)]:
        stage.reset()
        assert killed(stage.job, fault, at)
        seen.add(stage.is_old_or_new())
    assert seen == {False, True}


def test_what_a_killed_writer_leaves_goes_with_the_next_write_or_by_prune(stage: Stage) -> None:
    stage.reset()
    calls = count_calls(stage.job)
    for number, at in enumerate(range(calls // 2, calls + 1, 6)):
        stage.reset()
        killed(stage.job, die, at)
        new = stage.is_old_or_new()
        if number % 2:
            assert verify(stage.bank, run=ONE, prune=True).sound
            assert everything(stage.bank) == (stage.after if new else stage.before)
        elif not new:
            stage.job()
            assert everything(stage.bank) == stage.after
            assert sorted(p.name for p in stage.bank.parent.glob(".bank*")) == []


def test_any_call_that_fails_leaves_the_old_bank_and_no_litter(stage: Stage) -> None:
    stage.reset()
    calls = count_calls(stage.job)
    failed = 0
    for at in range(1, calls + 1, 3):
        stage.reset()
        with faulty(fail_with(errno.ENOSPC), at):
            try:
                stage.job()
            except NoSpace:
                failed += 1
                assert everything(stage.bank) == stage.before
            except RandesError:
                stage.is_old_or_new()
    assert failed > 5


def test_an_interruption_after_the_rename_takes_no_shard_of_the_new_bank(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is there, but the writer is not told: the index itself decides what stays."""
    stage.reset()

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("randes_cli.files.atomic._sync_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.job()
    assert stage.is_old_or_new()
    monkeypatch.undo()
    assert verify(stage.bank, run=ONE, prune=True).sound
    assert shards(stage.bank) == stage.after[1]
