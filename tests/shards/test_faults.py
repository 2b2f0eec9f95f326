"""Kills, full disks, interruptions: the old bank in shards or the new one, and no third thing."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from randes_cli import NoSpace, RandesError, verify
from randes_cli.files.bank.output import remove_passing
from randes_cli.files.bank.shard_folder import ShardFolder
from tests.faults.shim import (
    WRITES,
    Fault,
    count_calls,
    die,
    die_halfway,
    fail_with,
    faulty,
    killed,
)
from tests.life.models import ONE, put, take
from tests.shards.conftest import everything, sharded, shards
from tests.shards.stage import Stage


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
    for at in [*range(1, calls, 10), *range(calls - 14, calls + 1)]:
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


@pytest.mark.parametrize("at", [1, 2])
def test_a_new_bank_that_fails_leaves_no_folder(at: int, folder: Path) -> None:
    with pytest.raises(NoSpace), faulty(fail_with(errno.ENOSPC), at, names=("replace",)):
        sharded(folder, "whole")
    assert not list(folder.glob("*bank*"))


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


def test_shards_are_synced_before_they_have_names_and_names_before_the_index_has_its_own(
    stage: Stage,
) -> None:
    """Else a power failure could leave an index whose shards are not there, or are empty."""
    log: list[tuple[str, Path | None]] = []

    def note(name: str, real: Any, arguments: tuple[Any, ...]) -> Any:
        place = Path(f"/dev/fd/{arguments[0]}").resolve() if name == "fsync" else None
        log.append((name, Path(arguments[0]) if name == "replace" else place))
        return real(*arguments)

    stage.reset()
    with faulty(note, 1, names=WRITES, for_ever=True):
        stage.job()
    renames = [at for at, (name, _) in enumerate(log) if name == "replace"]
    assert len(renames) > 2
    for at in renames:
        assert log[at - 1] == ("fsync", log[at][1])
    *shards, index = renames
    folders = [stage.bank.with_name("bank.randes.d"), stage.bank.parent]
    assert [("fsync", folder) for folder in folders] == log[shards[-1] + 1 : shards[-1] + 3]
    assert log[index + 1] == ("fsync", stage.bank.parent)
    stage.reset()
    for name, data in stage.after[1].items():  # of a writer that died before the index
        (folders[0] / name).write_bytes(data)
    log.clear()
    with faulty(note, 1, names=WRITES, for_ever=True):
        stage.job()
    (index,) = (at for at, (name, _) in enumerate(log) if name == "replace")
    assert ("fsync", folders[0]) in log[:index]


def test_what_workers_leave_and_name_is_synced(tmp_path: Path) -> None:
    synced: list[Path] = []

    def note(name: str, real: Any, arguments: tuple[Any, ...]) -> Any:
        synced.append(Path(f"/dev/fd/{arguments[0]}").resolve())
        return real(*arguments)

    shards = ShardFolder(tmp_path / "bank.randes")
    with faulty(note, 1, names=("fsync",), for_ever=True):
        shards.sync()
        left = shards.leave(shards.create(64))
        assert synced == [left]
        shards.note("0" * 32)
        shards.sync()
    assert synced[1:] == [shards.path, tmp_path]


def test_shards_of_a_passing_bank_go_once_its_index_has_gone(tmp_path: Path) -> None:
    for name in (".bank.randes.0a.randes-tmp", ".bank.randes.0b.randes-tmp"):
        (tmp_path / f"{name}.d").mkdir()
        (tmp_path / f"{name}.d" / f"{'0' * 32}.safetensors").touch()
    (tmp_path / name).touch()
    remove_passing(tmp_path / "bank.randes")
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.d"}
    assert list((tmp_path / f"{name}.d").iterdir())
