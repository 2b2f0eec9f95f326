"""A checkpoint that changes while it is read makes a mixture: refused, and nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from randes_cli import PackOptions, TaskInput, evaluate, pack
from randes_cli.build.edit import add, remove
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.local.guard import is_still, stamp
from randes_cli.ops.diff import diff_checkpoints
from randes_cli.ops.measure import measure
from randes_cli.workers import Progress
from tests.life.models import ONE, make_bank, source, write_family

Verb = Callable[[Path, Progress], object]


def _measured(bank: Path, progress: Progress) -> object:
    with BankFile(bank) as file:
        return measure(file, {"single": source(bank.parent, "single")}, ONE, progress=progress)


VERBS: dict[str, Verb] = {
    "pack": lambda bank, progress: pack(
        source(bank.parent, "base"),
        [TaskInput("half", source(bank.parent, "half")), TaskInput("t", _moving(bank))],
        bank.with_name("new.randes"),
        run=ONE,
        progress=progress,
    ),
    "pack at 2 bits": lambda bank, progress: pack(
        source(bank.parent, "base"),
        [TaskInput("t", _moving(bank))],
        bank.with_name("new.randes"),
        PackOptions(bits=2),
        ONE,
        progress=progress,
    ),
    "pack on it": lambda bank, progress: pack(
        _moving(bank),
        [TaskInput("t", source(bank.parent, "half"))],
        bank.with_name("new.randes"),
        run=ONE,
        progress=progress,
    ),
    "add": lambda bank, progress: add(
        bank, [TaskInput("t", _moving(bank))], run=ONE, progress=progress
    ),
    "remove": lambda bank, progress: remove(bank, ["single"], run=ONE, progress=progress),
    "measure": _measured,
    "diff": lambda bank, progress: diff_checkpoints(
        source(bank.parent, "base"), _moving(bank), ONE, progress=progress
    ),
}


def _moving(bank: Path) -> str:
    return source(bank.parent, "single")


def _in_place(path: Path) -> None:
    """The same names and shapes, half of the values other: as torch saves over a file."""
    state = {k: np.asarray(v + 1, v.dtype) if v.ndim else v for k, v in load_file(path).items()}
    save_file(state, path.with_name("other"), metadata={"format": "pt"})
    data = path.with_name("other").read_bytes()
    path.with_name("other").unlink()
    with path.open("r+b") as file:
        file.seek(len(data) // 2)
        file.write(data[len(data) // 2 :])


def _replaced(path: Path) -> None:
    shutil.copy(path, path.with_name("other"))
    os.replace(path.with_name("other"), path)


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES = {"in place": _in_place, "replaced": _replaced, "longer": _longer}


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return make_bank(write_family(tmp_path), ("single", "half"))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("verb", VERBS)
def test_an_input_that_changes_is_refused_and_nothing_is_written(
    verb: str, change: str, bank: Path
) -> None:
    moved: list[bool] = []
    moving = Path(_moving(bank))
    before = moving.stat()
    os.utime(moving, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))

    def progress(phase: str, done: int, total: int) -> None:
        if not moved and phase not in ("sampling", "measuring half"):
            CHANGES[change](moving)
            moved.append(True)

    old = bank.read_bytes()
    # What has a fingerprint, or is compared, may be found to be another before that.
    with pytest.raises((CheckpointError, MismatchError), match=r"changed while|packed"):
        VERBS[verb](bank, progress)
    assert moved and bank.read_bytes() == old
    assert [path.name for path in bank.parent.iterdir() if path.name.startswith((".", "new"))] == []


def test_a_file_that_is_gone_is_not_still_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = stamp((tmp_path / "file").stat())
    assert is_still(tmp_path / "file", before)
    (tmp_path / "file").unlink()
    assert not is_still(tmp_path / "file", before)


def test_an_original_that_changes_while_it_is_scored_gives_no_score(bank: Path) -> None:
    moving = Path(_moving(bank))
    before = moving.stat()
    os.utime(moving, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))

    def scored(path: Path, task: str) -> float:
        if path == moving:
            _in_place(moving)
        return 1.0

    with pytest.raises(CheckpointError, match="changed while it was read"):
        evaluate(bank, scored, ONE)
    assert evaluate(bank, lambda path, task: 1.0, ONE).mean.retrieved == 1.0
