"""Nothing is read, imported or computed from files after a commit: it could only fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from randes_cli.build.seal.seal import seal
from randes_cli.cli.main import run
from randes_cli.errors import BankDamaged
from randes_cli.files.bank.file import BankFile
from tests.life.models import make_bank, source, write_family

#: Every command that writes, with `{B}` a bank of ``single`` and ``half`` beside its checkpoints.
COMMANDS: dict[str, list[str]] = {
    "pack": ["pack", "{base}", "{single}", "-o", "{new}"],
    "pack over a bank": ["pack", "{base}", "{single}", "-o", "{B}", "--force"],
    "pack at 2 bits": ["pack", "{base}", "{single}", "-o", "{new}", "--bits", "2"],
    "add": ["add", "{B}", "{whole}"],
    "remove": ["remove", "{B}", "-t", "single"],
    "forget": ["remove", "{B}", "-t", "single", "--forget"],
    "seal": ["seal", "{B}", "--bits", "4", "-o", "{new}"],
    "seal in place": ["seal", "{B}", "--bits", "4", "--in-place"],
    "tune": ["tune", "{B}", "--evaluate", "sh -c 'echo 1' {{checkpoint}}", "--grid", "0.5,1"],
    "unpack": ["unpack", "{B}", "-t", "single", "-o", "{file}"],
    "report": ["report", "{B}", "-o", "{new}"],
    "csv": ["evaluate", "{B}", "--evaluate", "sh -c 'echo 1' {{checkpoint}}", "--csv", "{new}"],
}

#: What the hook below does with a file that is opened or a module that is imported.
_WATCH: list[Any] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCH and event in ("open", "import"):
        _WATCH[0](event, arguments)


sys.addaudithook(_hook)


class _Commit:
    """Fails every read after the last rename onto one of `targets`."""

    def __init__(self, targets: set[Path], renames: int) -> None:
        self.targets, self.left = targets, renames
        self.refused: list[str] = []

    def renamed(self, target: Path) -> None:
        self.left -= target in self.targets

    def opened(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left > 0:
            return
        name, mode = arguments[0], arguments[1] if event == "open" else ""
        if event == "open" and (isinstance(name, int) or Path(os.fsdecode(name)).is_dir()):
            return  # the folder, to sync it; standard output
        if event == "open" and isinstance(mode, str) and set(mode) & set("wax+"):
            return
        if name == "/proc/self/status":
            return  # of this process; without it the figure is another
        self.refused.append(f"{event} {name}")
        raise OSError(5, f"{event} {name} after the commit")

    def read(self, *arguments: Any) -> Any:
        self.refused.append("read")
        raise OSError(5, "read after the commit")


def _filled(case: str, bank: Path) -> list[str]:
    folder = bank.parent
    names = {name: source(folder, name) for name in ("base", "single", "half", "whole")}
    return [
        word.format(B=bank, new=folder / "new.randes", file=folder / "new.safetensors", **names)
        for word in COMMANDS[case]
    ]


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return make_bank(write_family(tmp_path), ("single", "half"))


@pytest.fixture
def watching() -> Iterator[list[Any]]:
    yield _WATCH
    _WATCH.clear()


@pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
@pytest.mark.parametrize("case", COMMANDS)
def test_every_read_after_the_commit_may_fail(
    case: str,
    as_json: bool,
    bank: Path,
    watching: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = _filled(case, bank) + (["--json"] if as_json else [])
    targets = {bank, bank.with_name("new.randes"), bank.with_name("new.safetensors")}
    commit = _Commit(targets, 1)
    replace, preadv, pread = os.replace, os.preadv, os.pread

    def replaced(temporary: Path, target: Path) -> None:
        replace(temporary, target)
        commit.renamed(Path(target))

    def reading(real: Any) -> Any:
        return lambda *a: real(*a) if commit.left > 0 else commit.read(*a)

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "preadv", reading(preadv))
    monkeypatch.setattr(os, "pread", reading(pread))
    watching.append(commit.opened)
    code = run(words)
    watching.clear()
    assert (code, commit.refused, commit.left) == (0, [], 0), capsys.readouterr().err
    assert capsys.readouterr().out or (case == "report" and not as_json)


@pytest.mark.parametrize("key", ["stats/norms", "stats/gram"])
def test_damaged_statistics_stop_a_seal_before_it_begins(bank: Path, key: str) -> None:
    with BankFile(bank) as opened:
        place = opened.header.starts[key]
    data = bytearray(bank.read_bytes())
    data[place] ^= 1
    bank.write_bytes(data)
    for out in (None, bank.with_name("new.randes")):
        with pytest.raises(BankDamaged, match=key):
            seal(bank, out, 2)
    assert bank.read_bytes() == data and not bank.with_name("new.randes").exists()
