"""Names, places and streams that are not what a command hopes for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from randes_cli.cli.main import run
from tests.hostile.small import make_small_bank, write_small_family


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_small_family(tmp_path)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return make_small_bank(tmp_path)


NAMES = {
    "..": "..",
    "a folder up": "../x",
    "an absolute path": "/tmp/x",
    "a leading dot": ".x",
    "a trailing dot": "x.",
    "a newline": "a\nb",
    "an escape": "\x1b[31mred",
    "300 characters": "n" * 300,
    "a space": "a b",
    "a composed letter": "caf\u00e9",
    "a decomposed letter": "cafe\u0301",
    "a bidi override": "a\u202eb",
    "nothing": "",
    "a device": "con",
    "a device with a suffix": "LPT1.tensors",
    "a backslash": "a\\b",
    "a colon": "c:x",
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_task_name_that_could_be_another_place_is_refused_with_2(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from randes_cli.build.pack import pack
    from randes_cli.errors import UsageError
    from randes_cli.specs import TaskInput

    out = folder / "out.randes"
    with pytest.raises(UsageError, match="task name"):
        task = TaskInput(NAMES[kind], str(folder / "a.safetensors"))
        pack(str(folder / "base.safetensors"), [task], out)
    if "/" not in NAMES[kind]:
        words = [
            "pack",
            str(folder / "base.safetensors"),
            f"{NAMES[kind]}={folder / 'a.safetensors'}",
        ]
        assert run([*words, "-o", str(out)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "\x1b" not in said and "\u202e" not in said
    assert not out.exists()


def test_case_twins_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = folder / "a.safetensors"
    words = ["pack", str(folder / "base.safetensors"), f"Cars={a}", f"cars={a}"]
    assert run([*words, "-o", str(folder / "o.randes")]) == 2
    assert "differ only in case" in capsys.readouterr().err
    bank = make_small_bank(folder)
    assert run(["add", str(bank), f"A={a}"]) == 2


def _untouched(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("how", ["itself", "hard link", "symbolic link"])
def test_an_output_that_is_an_input_is_refused_even_with_force(
    how: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank, base, out = make_small_bank(folder), folder / "base.safetensors", folder / "out"
    for victim, words in (
        (base, ["pack", str(base), f"t={folder / 'a.safetensors'}"]),
        (base, ["pack", str(folder / "a.safetensors"), f"t={base}"]),
        (bank, ["unpack", str(bank), "--task", "a"]),
    ):
        target = out.with_suffix(".safetensors")
        target.unlink(missing_ok=True)
        if how == "itself":
            target = victim
        elif how == "hard link":
            target.hardlink_to(victim)
        else:
            target.symlink_to(victim)
        before = _untouched(folder)
        if words[0] == "unpack" and how == "itself":
            continue  # without the suffix a name stands for a folder
        assert run([*words, "-o", str(target), "--force"]) == 2
        assert "is the input" in capsys.readouterr().err
        assert _untouched(folder) == before


def test_an_output_that_is_a_folder_or_a_device_is_refused(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bank.parent
    words = ["pack", str(folder / "base.safetensors"), f"t={folder / 'a.safetensors'}", "--force"]
    table = [
        ([*words, "-o", str(folder)], 2, "is a folder"),
        ([*words, "-o", "/dev/null"], 2, "not a regular file"),
        ([*words, "-o", str(folder / "no" / "o.randes")], 5, "no such folder"),
        ([*words, "-o", str(folder / "a.safetensors" / "o.randes")], 2, "not a folder"),
        (["unpack", str(bank), "--task", "a", "-o", str(bank)], 2, "not a folder"),
        (["unpack", str(bank), "--task", "a", "-o", "/dev/full"], 2, "not a folder"),
        (["unpack", str(bank), "--task", "a", "-o", str(folder)], 2, "--force"),
        ([*words, "-o", str(folder / ("n" * 256))], 2, "a longer name than the file system"),
        (["add", str(folder / "no" / "b.randes"), str(folder / "a.safetensors")], 5, "not found"),
        (["verify", str(folder)], 3, "a folder; the bank in it is"),
        (["verify", "/dev/zero"], 3, "not a regular file"),
        (["verify", str(folder / ("n" * 300))], 2, "a longer name than the file system takes"),
    ]
    before = _untouched(folder)
    for line, code, said in table:
        assert run(line) == code, line
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
        assert _untouched(folder) == before


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "randes_cli", *map(str, words)]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter: pytest's own are for the user who runs it."""
    with TemporaryDirectory() as place:
        yield Path(place)


def test_a_folder_that_cannot_be_written_is_an_error_and_no_harm(
    open_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As an ordinary user: root may write everywhere."""
    bank, other = (open_folder / name / "small.randes" for name in ("x", "y"))
    for made in (other, bank):
        made.parent.mkdir()
        make_small_bank(made.parent)
    # and imports what the other user might not read
    assert [run(words) for words in _each(other)] == [0, 0, 0, 0, 0]
    for path in bank.parent.iterdir():
        path.chmod(0o644)
    open_folder.chmod(0o755)
    bank.parent.chmod(0o555)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            code = 0 if [run(words) for words in _each(bank)] == [74, 74, 74, 0, 0] else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, capfd.readouterr().err
    bank.parent.chmod(0o755)


def _each(bank: Path) -> list[list[str]]:
    """Three that write, and two that do not."""
    task = str(bank.parent / "a.safetensors")
    return [
        ["add", str(bank), f"c={task}"],
        ["unpack", str(bank), "--task", "a", "-o", str(bank.parent / "o.st")],
        ["remove", str(bank), "--task", "a"],
        ["verify", str(bank)],
        ["add", str(bank), f"d={task}", "--dry-run"],
    ]


def test_a_reader_that_goes_away_ends_the_command_quietly(bank: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    for words in (["inspect", bank], ["inspect", bank, "--json"], ["inspect", bank, "--manifest"]):
        done = subprocess.run(
            _command(*words), stdout=write, stderr=subprocess.PIPE, env=_environment(), check=False
        )
        assert (done.returncode, done.stderr) == (141, b"")
    os.close(write)


def test_full_and_closed_streams_change_no_result(bank: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    missing = bank.parent / "none.randes"
    done = subprocess.run(
        _command("inspect", missing), stderr=full, env=_environment(), check=False
    )
    assert done.returncode == 5
    done = subprocess.run(
        _command("inspect", bank),
        stdout=full,
        stderr=subprocess.PIPE,
        env=_environment(),
        check=False,
    )
    assert done.returncode == 8
    assert done.stderr.count(b"\n") == 1 and b"standard output" in done.stderr
    os.close(full)
    before = bank.read_bytes()
    line = " ".join(_command("remove", bank, "--task", "b")) + " <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", line], env=_environment(), check=False)
    assert done.returncode == 0
    assert bank.read_bytes() != before
    assert run(["verify", str(bank)]) == 0


def test_a_report_that_finds_no_room_is_not_taken_for_a_bank_that_found_none(bank: Path) -> None:
    base, new = bank.parent / "base.safetensors", bank.parent / "new.randes"
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            _command("pack", base, f"a={bank.parent / 'a.safetensors'}", "-o", new),
            stdout=full,
            stderr=subprocess.PIPE,
            env=_environment(),
            check=False,
        )
    lost = b"standard output: no space left while printing (No space left on device); what was to "
    assert (done.returncode, lost in done.stderr) == (8, True)
    assert b"nothing was changed" not in done.stderr
    assert run(["verify", str(new)]) == 0


def test_a_terminal_of_another_encoding_shows_escapes_and_no_traceback(bank: Path) -> None:
    odd = bank.parent / "caf\u00e9-\udcff.randes"
    bank.rename(odd)
    for more in (
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONUTF8": "0", "LC_ALL": "C"},
    ):
        for words in (["inspect", odd], ["verify", odd], ["inspect", bank]):
            done = subprocess.run(
                _command(*words), capture_output=True, env=_environment(**more), check=False
            )
            assert done.returncode == (5 if words[1] == bank else 0), done.stderr
            assert b"Traceback" not in done.stderr and b"internal" not in done.stderr


def test_a_checkpoint_whose_file_name_is_no_text_can_be_packed(folder: Path) -> None:
    odd = folder / "odd-\udcff\x1b.safetensors"
    (folder / "a.safetensors").rename(odd)
    out = folder / "o.randes"
    words = ["pack", str(folder / "base.safetensors"), f"t={odd}", "-o", str(out), "-q"]
    assert run(words) == 0
    assert run(["verify", str(out), "-q"]) == 0


def test_a_pickle_that_torch_has_advice_on_is_refused_in_one_line(folder: Path) -> None:
    path = folder / "new.bin"
    torch.save({"w": torch.ones(4), "x": bytearray(8)}, path, pickle_protocol=5)
    words = ["pack", str(folder / "base.safetensors"), f"t={path}", "--allow-pickle"]
    done = subprocess.run(
        [sys.executable, "-m", "randes_cli", *words, "-o", str(folder / "o.randes")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "its pickle holds more than tensors" in done.stderr
