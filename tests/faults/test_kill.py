"""kill -9 at every call that changes a file: the old bank or the new one, never a third thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli.files.bank.file import BankFile
from randes_cli.ops.verify import verify
from randes_cli.specs import RunOptions
from tests.faults.conftest import Scene
from tests.faults.shim import Fault, count_calls, die, die_halfway, killed


@pytest.mark.parametrize("fault", [die, die_halfway], ids=["before", "halfway"])
def test_a_kill_at_any_call_leaves_the_old_bank_or_the_new_one(scene: Scene, fault: Fault) -> None:
    calls = count_calls(scene.job)
    assert calls > 10
    seen = set()
    for at in range(1, calls + 1):
        scene.reset()
        assert killed(scene.job, fault, at)
        state = scene.state()
        assert state in (scene.before, scene.after), f"call {at} of {calls}"
        seen.add(state == scene.after)
    assert seen == {False, True}


def test_what_a_killed_writer_leaves_goes_with_the_next_write(scene: Scene) -> None:
    calls = count_calls(scene.job)
    for at in range(1, calls + 1, 7):
        scene.reset()
        killed(scene.job, die, at)
        if scene.state() == scene.after:
            continue
        assert any(name.endswith(".randes-tmp") for name in scene.litter())
        scene.job()
        assert scene.litter() == []
        assert scene.state() == scene.after
        with BankFile(scene.bank) as bank:
            assert verify(bank, RunOptions(threads=1)).sound


def test_the_temporary_file_of_a_living_writer_is_kept(scene: Scene) -> None:
    import fcntl

    alive = scene.folder / ".bank.randes.0123456789ab.randes-tmp"
    dead = scene.folder / ".bank.randes.ba9876543210.randes-tmp"
    dead.write_bytes(b"of a dead one")
    stranger = scene.folder / ".other.randes.0123456789ab.randes-tmp"
    stranger.write_bytes(b"of another bank")
    with alive.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        scene.job()
        assert scene.litter() == [alive.name, stranger.name]


def test_a_crash_between_any_two_disk_syncs_cannot_show_a_bank_that_was_not_synced(
    scene: Scene,
) -> None:
    """The file is synced after its last byte and before its rename, the folder after that."""
    from tests.faults.shim import WRITES, faulty

    log: list[tuple[str, str]] = []

    def note(name: str, real: object, arguments: tuple[object, ...]) -> object:
        what = ""
        if name == "fsync":
            what = Path(f"/dev/fd/{arguments[0]}").resolve().name
        log.append((name, what))
        return real(*arguments)  # type: ignore[operator]

    with faulty(note, 1, names=WRITES, for_ever=True):
        scene.job()
    names = [name for name, _ in log]
    commit = names.index("replace")
    assert names[commit - 1] == "fsync" and log[commit - 1][1].endswith(".randes-tmp")
    assert names[commit + 1] == "fsync" and log[commit + 1][1] == scene.folder.name
    assert not {"pwrite", "ftruncate", "copy_file_range"} & set(names[commit:])
