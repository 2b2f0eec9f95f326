"""What a command writes takes no input's place, and no bank's that another edits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from randes_cli.cli.main import run
from randes_cli.errors import UsageError
from randes_cli.files.atomic import atomic_file, write_whole
from randes_cli.files.bank.file import BankFile
from randes_cli.files.local.lock import bank_lock
from tests.life.models import make_bank, source, write_family

#: Every command that writes where it is told: its words, `{out}` being the place. All have B and
#: the checkpoints of ``single`` and ``half`` beside it.
WRITERS: dict[str, list[str]] = {
    "pack": ["pack", "{base}", "{single}", "-o", "{out}", "--force"],
    "pack at 2 bits": ["pack", "{base}", "{single}", "-o", "{out}", "--force", "--bits", "2"],
    "seal": ["seal", "{B}", "--bits", "4", "-o", "{out}", "--force"],
    "unpack": ["unpack", "{B}", "-t", "single", "-o", "{out}", "--force"],
    "report": ["report", "{B}", "-o", "{out}", "--force"],
    "plot": ["plot", "{B}", "-o", "{out}", "--force"],
    "csv": [
        "evaluate",
        "{B}",
        "--evaluate",
        "sh -c 'echo 1' {{checkpoint}}",
        "--csv",
        "{out}",
        "--force",
    ],
    "markdown": [
        *("evaluate", "{B}", "--evaluate", "sh -c 'echo 1' {{checkpoint}}"),
        *("--markdown", "{out}", "--force"),
    ],
}
#: The ending that a place must have.
ENDINGS = {"unpack": ".safetensors", "plot": ".svg"}


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return make_bank(write_family(tmp_path), ("single", "half"))


def words(case: str, bank: Path, out: Path) -> list[str]:
    names = {name: source(bank.parent, name) for name in ("base", "single", "half")}
    return [word.format(B=bank, out=out, **names) for word in WRITERS[case]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("case", WRITERS)
def test_whoever_replaces_a_bank_waits_for_nobody_and_overtakes_nobody(
    case: str, bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = bank.with_name(f"other{ENDINGS.get(case, '.randes')}")
    shutil.copy(bank, other)
    before = contents(bank.parent)
    with bank_lock(other, wait=0):
        assert run(words(case, bank, other)) == 7
        assert "locked by process" in capsys.readouterr().err
    assert contents(bank.parent) == before
    assert run(words(case, bank, other)) == 0
    after = contents(bank.parent)
    assert after.pop(other.name) != before.pop(other.name) and after == before


@pytest.mark.parametrize("how", ["itself", "hard link", "symbolic link"])
@pytest.mark.parametrize("victim", ["B", "single", "base"])
@pytest.mark.parametrize("case", WRITERS)
def test_no_input_of_a_command_is_written_over(
    case: str, victim: str, how: str, bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = bank if victim == "B" else Path(source(bank.parent, victim))
    if case.startswith("pack") and victim == "B":
        return
    place, ending = file, ENDINGS.get(case)
    if how == "itself" and ending not in (None, file.suffix):
        return
    if how != "itself":
        place = file.with_name(f"place{ending or file.suffix}")
        (place.hardlink_to if how == "hard link" else place.symlink_to)(file)
    given = words(case, bank, place)
    if case in ("report", "plot") and victim != "B":
        given += ["--against", f"single={source(bank.parent, 'single')}"]
        given += ["--kind", "distribution"] if case == "plot" else []
    if case in ("csv", "markdown"):
        given += ["--against", f"single={source(bank.parent, 'single')}"]
    if victim == "base" and not case.startswith("pack"):
        given += ["--base", source(bank.parent, "base")] if case != "seal" else []
        if case in ("seal", "unpack", "report", "plot"):
            return  # they do not read it: the base is inside the bank
    if victim == "single" and case in ("seal", "unpack"):
        return
    before = contents(bank.parent)
    expected = 0 if case == "seal" and how != "hard link" else 2
    assert run(given) == expected
    if expected:
        assert "is the input" in capsys.readouterr().err
        assert contents(bank.parent) == before
        assert place.is_symlink() == (how == "symbolic link")
    else:  # named as its own output, it is sealed in place
        with BankFile(bank) as opened:
            assert opened.manifest.sealed


def test_a_folder_named_as_an_original_is_an_input_with_all_that_is_in_it(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bank.parent / "model"
    (folder / "inner").mkdir(parents=True)
    shutil.copy(source(bank.parent, "half"), folder / "model.safetensors")
    (folder / "inner" / "config.json").write_text("{}")
    for name in ("model.safetensors", "inner/config.json"):
        given = words("csv", bank, folder / name)
        assert run([*given, "--against", f"half={folder}"]) == 2
        assert "is the input" in capsys.readouterr().err
    assert (folder / "inner" / "config.json").read_text() == "{}"


def test_one_file_is_not_named_for_two_tables(bank: Path) -> None:
    place = bank.parent / "scores"
    assert run([*words("csv", bank, place), "--markdown", str(place)]) == 2
    assert not place.exists()


@pytest.mark.parametrize("case", ["pack", "pack at 2 bits", "seal"])
def test_an_edit_that_comes_while_a_bank_is_replaced_is_told_to_wait(
    case: str, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`add` must not say 0 where what it added goes with the old bank."""
    from randes_cli.files.bank.writer import BankWriter

    other = bank.with_name("other.randes")
    shutil.copy(bank, other)
    codes = []
    real = BankWriter.finish

    def finish(writer: BankWriter, *arguments: object) -> int:
        add = "from randes_cli.cli.main import run; import sys; sys.exit(run(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", add, "add", str(other), source(bank.parent, "whole")],
            capture_output=True,
            check=False,
        )
        codes.append(done.returncode)
        return real(writer, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BankWriter, "finish", finish)
    assert run(words(case, bank, other)) == 0
    assert set(codes) == {7}


def test_a_file_that_comes_meanwhile_is_not_replaced_without_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="exists"), atomic_file(out, force=False):
        out.write_text("another's")
    assert contents(tmp_path) == {"out": b"another's"}


def test_what_is_under_way_is_not_taken_for_what_the_dead_have_left(tmp_path: Path) -> None:
    """The temporary files of a longer name begin like those of a shorter one."""
    with atomic_file(tmp_path / "out.csv", force=False) as file:
        write_whole(tmp_path / "out", b"1", force=False)
        file.write_at(b"2", 0)
    assert contents(tmp_path) == {"out": b"1", "out.csv": b"2"}


def test_a_python_call_has_inputs_of_its_own(bank: Path) -> None:
    """What one call read, the next may replace."""
    from randes_cli import TaskInput, pack
    from randes_cli.build.edit import add

    out = bank.with_name("out.randes")
    base, single = source(bank.parent, "base"), source(bank.parent, "single")
    for _ in range(2):
        pack(base, [TaskInput("t", single)], out, force=True)
    add(out, [TaskInput("u", source(bank.parent, "half"))])
    moved = Path(single)
    pack(base, [TaskInput("t", source(bank.parent, "half"))], moved, force=True)
    with BankFile(moved) as opened:
        assert [task.name for task in opened.manifest.tasks] == ["t"]


def test_the_number_of_an_input_that_is_gone_stands_for_nothing(bank: Path) -> None:
    """File systems give an inode's number to the next file, which may be an output."""
    from randes_cli.files.local.guard import note_input, one_command, refuse_input

    other = bank.with_name("other")
    with one_command():
        note_input(bank)
        bank.rename(other)
        refuse_input(other)
        other.rename(bank)
        with pytest.raises(UsageError, match="is the input"):
            refuse_input(bank)


@pytest.mark.parametrize("case", WRITERS)
def test_a_link_to_a_pipe_or_a_folder_stays_what_it_is(
    case: str, bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``-o /dev/stdout --force`` by the system's administrator took the link away from all."""
    target, place = bank.parent / "target", bank.parent / f"place{ENDINGS.get(case, '')}"
    place.symlink_to(target)
    target.mkdir()
    if case != "unpack":  # which writes into a folder
        assert run(words(case, bank, place)) == 2
        assert "is a folder" in capsys.readouterr().err
    target.rmdir()
    os.mkfifo(target)
    assert run(words(case, bank, place)) == 2
    assert "not a regular file" in capsys.readouterr().err
    assert place.is_symlink() and target.is_fifo()


def test_a_link_to_nothing_is_replaced_by_force_alone(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists"):
        write_whole(place, b"new", force=False)
    write_whole(place, b"new", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["place"] and place.read_bytes() == b"new"
