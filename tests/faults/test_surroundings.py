"""Systems that give less than usual, files that change, and names that are odd."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from randes_cli.api import Bank
from randes_cli.cli.main import run
from randes_cli.errors import BankDamaged, MismatchError, UsageError, printable
from randes_cli.files.bank.file import BankFile
from tests.life.models import make_bank, source, write_family


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return make_bank(write_family(tmp_path), ("whole", "single"))


def _process(
    words: list[str], limit: Callable[[], None], **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "randes_cli", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )


def _limit(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, value))


def _needed(words: list[str]) -> int:
    """Megabytes of address space with which a command just works."""
    low, high = 30, 2000
    while high - low > 8:
        middle = (low + high) // 2
        done = _process(words, _limit(resource.RLIMIT_AS, middle << 20))
        low, high = (low, middle) if done.returncode == 0 else (middle, high)
    return high


def test_too_little_memory_ends_with_71_and_one_line(bank: Path) -> None:
    words = ["add", str(bank), source(bank.parent, "half"), "--threads", "1", "--dry-run"]
    needed, before = _needed(words), bank.read_bytes()
    for share in (0.98, 0.9, 0.8, 0.7):
        done = _process(words, _limit(resource.RLIMIT_AS, int(needed * share) << 20))
        if "cli/main.py" not in done.stderr and "Traceback" in done.stderr:
            continue  # Python itself did not start
        assert done.returncode == 71, done.stderr
        assert "memory" in done.stderr and done.stderr.count("\n") == 1
        assert bank.read_bytes() == before


def test_too_few_open_files_end_with_74_and_one_line(bank: Path) -> None:
    before = bank.read_bytes()
    words = ["add", str(bank), source(bank.parent, "half"), "--threads", "1", "-q"]
    codes = set()
    for count in range(4, 16):
        done = _process(words, _limit(resource.RLIMIT_NOFILE, count))
        if "Error processing line" in done.stderr:
            bank.write_bytes(before)
            continue  # Python itself did not start whole
        codes.add(done.returncode)
        if done.returncode:
            assert (done.returncode, bank.read_bytes()) == (74, before), done.stderr
            assert "Too many open files" in done.stderr and done.stderr.count("\n") == 1
        bank.write_bytes(before)
    assert codes == {0, 74}


def test_originals_beyond_the_open_files_are_named_or_opened(bank: Path) -> None:
    for n in range(30):
        shutil.copy(source(bank.parent, "half"), bank.parent / f"t{n}.safetensors")
    many = [str(bank.parent / f"t{n}.safetensors") for n in range(30)]
    assert run(["add", str(bank), *many, "-q"]) == 0
    words, before = ["add", str(bank), f"last={many[0]}", "-q"], bank.read_bytes()
    for count in (20, 33):
        done = _process(words, _limit(resource.RLIMIT_NOFILE, count))
        assert (done.returncode, bank.read_bytes()) == (74, before)
        assert ".safetensors: Too many open files while opening" in done.stderr
    done = _process(words, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, 100)))
    assert done.returncode == 0, done.stderr


def test_a_working_folder_that_is_gone_is_named(bank: Path) -> None:
    gone = bank.parent / "gone"
    gone.mkdir()

    def leave() -> None:
        os.chdir(gone)
        gone.rmdir()

    done = _process(["inspect", "bank.randes"], leave)
    assert done.returncode == 5
    assert done.stderr.startswith("randes: the working folder is gone")


def test_a_folder_for_temporary_files_that_is_not_there_is_named(bank: Path) -> None:
    words = ["tune", str(bank), "--evaluate", "echo 1 # {checkpoint}", "--grid", "1"]
    done = _process(words, lambda: None, TMPDIR="/no/such/folder")
    assert done.returncode == 5
    assert done.stderr == "randes: /no/such/folder: no such folder, and TMPDIR names it\n"


@pytest.mark.parametrize(
    ("words", "variable", "code", "said"),
    [
        ("--help", "COLUMNS=" + "9" * 30, 0, ""),
        ("plot BANK -o BANK.svg", "MPLBACKEND=none such", 2, "matplotlib cannot be loaded"),
        ("report BANK -o BANK.html", "MPLBACKEND=none such", 0, ""),
        ("push BANK org/name", "TQDM_MININTERVAL=x", 2, "the Hub's client cannot be loaded"),
        ("inspect org/name", "HF_HUB_DOWNLOAD_TIMEOUT=x", 2, "the Hub's client cannot be loaded"),
        ("push BANK org/name", "HF_ENDPOINT=::::", 9, "the connection to :::: failed"),
        ("verify BANK", "_RANDES_COMPLETE=complete_bash", 1, ""),
    ],
)
def test_a_variable_that_a_library_cannot_read_ends_with_one_line(
    bank: Path, words: str, variable: str, code: int, said: str
) -> None:
    name, _, value = variable.partition("=")
    done = _process([*words.replace("BANK", str(bank)).split()], lambda: None, **{name: value})
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert code == 0 or done.stderr.count("randes: ") == (said != "")


def test_a_bank_that_is_cut_short_while_it_is_read_is_damaged(bank: Path) -> None:
    with BankFile(bank) as file, Bank.open(bank) as opened:
        os.truncate(bank, bank.stat().st_size // 2)
        with pytest.raises(BankDamaged):
            opened.retrieve("whole")
        with pytest.raises(BankDamaged, match="truncated while it was read"):
            file.read_whole("manifest")


def _module(tensor: torch.Tensor) -> torch.nn.Module:
    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", tensor)

    return Module()


def test_tensors_without_memory_of_their_own_are_refused(bank: Path) -> None:
    shape = (1100, 64)
    odd = {
        "expanded": torch.zeros(1, 64).expand(shape),
        "expanded: several": torch.zeros(3000).as_strided(shape, (2, 1)),
        "sparse": torch.zeros(shape).to_sparse(),
    }
    with Bank.open(bank) as opened:
        for what, tensor in odd.items():
            with pytest.raises(MismatchError, match=what):
                opened.load_into(_module(tensor), "whole", strict=False)
        columns = torch.zeros(64, 1100).T
        opened.load_into(_module(columns), "whole", strict=False)
        assert torch.equal(columns, opened.retrieve("whole")["table"])


@pytest.mark.parametrize(
    ("base", "task", "blamed", "said"),
    [
        (0.0, 1e300, "task", "values beyond the range of float32"),
        (1e300, 0.0, "base", "values beyond the range of float32"),
        (-3e38, 3e38, "task", "differences from the base beyond the range of float32"),
        (0.0, np.inf, "task", "NaN or infinite values"),
        (np.nan, 0.0, "base", "NaN or infinite values"),
    ],
)
def test_what_has_no_finite_delta_is_called_by_its_name(
    base: float,
    task: float,
    blamed: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (("base", base), ("task", task)):
        values = np.full((40, 30), 0.5)
        values[7, 3] = value
        save_file({"w": values}, tmp_path / f"{name}.safetensors")
    words = [source(tmp_path, "base"), source(tmp_path, "task"), "-o", str(tmp_path / "b.randes")]
    assert run(["pack", *words]) == 3
    error = capsys.readouterr().err
    assert f"{blamed}.safetensors: tensor 'w' has {said}" in error


def test_control_characters_in_names_are_shown_escaped(
    bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "a\x1b[31m\r\u202ename"
    assert printable(odd) == "a\\x1b[31m\\r\\u202ename"
    assert run(["inspect", str(bank.parent / odd)]) == 5
    named = bank.parent / f"{odd}.randes"
    bank.rename(named)
    assert run(["verify", str(named)]) == 0
    assert run(["inspect", str(named)]) == 0
    assert run(["unpack", str(named), "-t", "whole", "-o", str(bank.parent / f"{odd}.st")]) == 0
    found = capsys.readouterr()
    for text in (found.out, found.err):
        assert "a\\x1b[31m" in text
        assert not set(text) & set("\x1b\r\u202e")


def test_what_the_system_does_not_look_at_is_no_failed_write(bank: Path) -> None:
    name = "x" * 5000  # as a folder that may not be entered, which the administrator always may
    for words in (["inspect", name], ["pack", name, str(bank), "-o", str(bank.parent / "n")]):
        done = _process(words, lambda: None)
        assert done.returncode == 2
        assert done.stderr.endswith("a longer name than the file system takes\n")
    with pytest.raises(UsageError, match="a longer name"):
        Bank.open(name)


def test_pictures_leave_nothing_where_there_is_no_home(bank: Path) -> None:
    folder = bank.parent / "tmp"
    folder.mkdir()
    out = str(bank.with_name("picture.svg"))
    home = {"HOME": "/dev/null", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "MPLCONFIGDIR": ""}
    done = _process(["plot", str(bank), "-o", out], lambda: None, TMPDIR=str(folder), **home)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith(out)
    assert list(folder.iterdir()) == []
