"""The checkpoints that a bank was packed from outlive what comes out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli.build.pack import pack
from randes_cli.errors import BankDamaged, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from tests.read.folders import RUN, folder

BOTH_WAYS = pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A bank of two folders, beside them."""
    base = folder(tmp_path / "base", 0)
    tasks = [folder(tmp_path / name, seed) for seed, name in enumerate(("cars", "flowers"), 1)]
    pack(base.source, tasks, tmp_path / "bank.randes")
    return tmp_path / "bank.randes"


def everything(path: Path) -> dict[str, bytes]:
    files = (p for p in path.rglob("*") if p.is_file())
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


@BOTH_WAYS
@pytest.mark.parametrize(
    ("out", "original"),
    [
        (None, "cars"),
        ("cars", "cars"),
        ("flowers", "flowers"),
        ("base", "the base"),
        ("flowers/model.safetensors", "flowers"),
        ("link", "flowers"),
    ],
)
def test_no_original_of_the_bank_is_replaced_whoever_it_is_of(
    out: str | None,
    original: str,
    force: bool,
    bank: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "flowers")
    monkeypatch.chdir(tmp_path)
    before = everything(tmp_path)
    with pytest.raises(UsageError, match=f"exists, and is what {original} was packed from"):
        unpack("bank.randes", ["cars"], out, UnpackOptions(force=force), RUN)
    assert everything(tmp_path) == before


@BOTH_WAYS
def test_a_base_that_is_named_is_not_replaced_either(
    force: bool, bank: Path, tmp_path: Path
) -> None:
    (tmp_path / "base").rename(tmp_path / "moved")
    out = tmp_path / "moved"
    with pytest.raises(UsageError, match="is what the base was packed from"):
        unpack(bank, ["cars"], out, UnpackOptions(force=force), RUN, base=out)


def test_what_came_out_before_is_replaced_with_force(bank: Path, tmp_path: Path) -> None:
    unpack(bank, ["cars"], tmp_path / "flowers" / "beside.safetensors", UnpackOptions(), RUN)
    for inside in ("out", "cars/out"):
        unpack(bank, ["cars"], tmp_path / inside, UnpackOptions(), RUN)
        before = everything(tmp_path)
        unpack(bank, ["cars"], tmp_path / inside, UnpackOptions(force=True), RUN)
        assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", ["sum/", "files/"])
def test_a_task_that_is_damaged_leaves_nothing_where_it_was_to_go(
    kind: str, bank: Path, tmp_path: Path
) -> None:
    with BankFile(bank) as file:
        start = max(s for key, s in file.header.starts.items() if key.startswith(kind))
    data = bytearray(bank.read_bytes())
    data[start] ^= 1
    bank.write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BankDamaged):
        unpack(bank, ["cars"], tmp_path / "deep" / "out", UnpackOptions(), RUN)
    assert sorted(tmp_path.rglob("*")) == before
