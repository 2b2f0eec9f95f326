"""One writer at a time, who it is, and readers that never wait."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from randes_cli.cli.main import run
from randes_cli.errors import BankLocked, InputOutputError, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.local.guard import is_held, note_input, one_command, refuse_input
from randes_cli.files.local.lock import bank_lock, clear_lock, output_lock
from tests.faults.writers import two_writers
from tests.life.models import make_bank, put, source, write_family


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return make_bank(write_family(tmp_path), ("single", "whole"))


def test_a_second_writer_fails_with_7_and_says_who_holds_the_lock(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with bank_lock(bank, wait=0):
        for _ in range(2):  # asking must not wipe out the answer
            assert run(["add", str(bank), source(bank.parent, "half")]) == 7
            said = capsys.readouterr().err
            assert f"locked by process {os.getpid()} on " in said
            assert "--wait" in said
    assert run(["add", str(bank), source(bank.parent, "half"), "-q"]) == 0


def test_a_writer_that_waits_gets_its_turn(bank: Path) -> None:
    held, entered = threading.Event(), threading.Event()

    def hold() -> None:
        with bank_lock(bank, wait=0):
            entered.set()
            held.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait()
    threading.Timer(0.2, held.set).start()
    put(bank, "half", wait=60)
    holder.join()
    with BankFile(bank) as opened:
        assert [task.name for task in opened.manifest.tasks] == ["single", "whole", "half"]


def test_a_writer_that_waits_in_vain_changes_nothing(bank: Path) -> None:
    before = bank.read_bytes()
    with bank_lock(bank, wait=0), pytest.raises(BankLocked):
        put(bank, "half", wait=0.2)
    assert bank.read_bytes() == before


def test_the_lock_of_a_dead_process_is_free(bank: Path) -> None:
    child = os.fork()
    if child == 0:
        with bank_lock(bank, wait=0):
            os._exit(0)
    os.waitpid(child, 0)
    assert (bank.parent / ".bank.randes.lock").exists()
    put(bank, "half")
    assert not (bank.parent / ".bank.randes.lock").exists()


def test_a_lock_whose_file_went_before_it_was_locked_is_taken_anew(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two would hold it: one the file without a name, one the new file."""
    real, first = fcntl.flock, ExitStack()
    first.enter_context(bank_lock(bank, wait=0))

    def late(fd: int, operation: int) -> None:
        first.close()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with bank_lock(bank, wait=0), pytest.raises(BankLocked):
        put(bank, "half")


def test_a_lock_that_somebody_removed_takes_no_other_s_away(bank: Path) -> None:
    place = bank.parent / ".bank.randes.lock"
    with bank_lock(bank, wait=0):
        place.unlink()
        place.write_text("another's")
    assert place.read_text() == "another's"


def test_a_lock_is_held_however_its_folder_is_called(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bank.parent)
    with bank_lock(bank, wait=0), output_lock(Path(bank.name)):
        assert is_held(Path(bank.name)) and is_held(bank)


def test_a_command_holds_and_edits_no_bank_whose_lock_it_gave_back(bank: Path) -> None:
    other = Path(source(bank.parent, "half"))
    with one_command():
        note_input(bank)
        note_input(other)
        with bank_lock(bank, wait=0):
            refuse_input(bank)
            assert not is_held(other)
            with pytest.raises(UsageError, match="is the input"):
                refuse_input(other)
        assert not is_held(bank)
        with pytest.raises(UsageError, match="is the input"):
            refuse_input(bank)


def test_a_lock_that_nobody_holds_is_cleared_and_no_other(bank: Path) -> None:
    place = bank.parent / ".bank.randes.lock"
    with bank_lock(bank, wait=0):
        clear_lock(bank)
        assert place.exists()
    clear_lock(bank)
    assert not place.exists()
    place.touch()
    clear_lock(bank)
    assert not place.exists()


def test_dry_runs_and_readers_need_no_lock(bank: Path) -> None:
    with bank_lock(bank, wait=0):
        assert run(["add", str(bank), source(bank.parent, "half"), "--dry-run", "-q"]) == 0
        assert run(["remove", str(bank), "--task", "whole", "--dry-run", "-q"]) == 0
        assert run(["verify", str(bank), "-q"]) == 0


def test_two_writers_lose_no_add_and_a_reader_always_reads_right(bank: Path) -> None:
    """`make torture` does the same with fifty adds each."""
    two_writers(bank, 10)


@pytest.fixture(params=["ENOLCK", "EOPNOTSUPP", "EINVAL", "ENOSYS"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as network disks often are."""

    def refuse(fd: int, operation: int) -> None:
        number = getattr(errno, request.param)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def _hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_without_locks_the_file_is_the_lock_and_goes_with_it(bank: Path, no_locks: None) -> None:
    put(bank, "half")
    assert _hidden(bank.parent) == []
    with BankFile(bank) as opened:
        assert [task.name for task in opened.manifest.tasks] == ["single", "whole", "half"]


def test_without_locks_a_second_writer_is_refused_and_told_what_to_delete(
    bank: Path, no_locks: None
) -> None:
    with bank_lock(bank, wait=0):
        for _ in range(2):  # who asks must not take it away
            with pytest.raises(BankLocked, match=rf"process {os.getpid()} .* delete .*\.lock"):
                put(bank, "half")
        assert _hidden(bank.parent) == [".bank.randes.lock"]
    put(bank, "half", wait=60)
    assert _hidden(bank.parent) == []


def test_a_lock_that_fails_in_another_way_leaves_no_file(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(InputOutputError, match="locking the bank"):
        put(bank, "half")
    assert _hidden(bank.parent) == []


def test_a_link_at_the_lock_file_is_not_followed(bank: Path) -> None:
    other = bank.parent / "precious.txt"
    other.write_text("precious")
    (bank.parent / ".bank.randes.lock").symlink_to(other)
    with pytest.raises(InputOutputError, match="locking the bank"):
        put(bank, "half")
    assert other.read_text() == "precious"
