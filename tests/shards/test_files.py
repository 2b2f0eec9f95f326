"""The files of a bank in shards: moved, lost, damaged, linked, in the way of others, and pruned."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from randes_cli import Bank, BankDamaged, UsageError, add, verify
from randes_cli.cli.main import run
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.shard_files import LocalShard
from randes_cli.files.local.system import most_open
from randes_cli.specs import TaskInput
from tests.life.models import ONE, make_bank, put, source, take
from tests.shards.conftest import everything, sharded, shards


def _first(bank: Path, kind: str) -> Path:
    """The first shard with a tensor of a kind."""
    with BankFile(bank) as opened:
        key = next(key for key in opened.header.tensors if key.startswith(kind))
        return bank.with_name(f"{bank.name}.d") / str(opened.store.shard_of(key))


def _put_in_place(shard: Path, harm: str) -> None:
    """What there is in the place of a shard that went."""
    if harm == "folder":
        shard.mkdir()
    elif harm == "pipe":
        os.mkfifo(shard)


def _said(code: int, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run([str(word) for word in words]) == code
    said = capsys.readouterr()
    return said.out + said.err


def test_a_bank_is_copied_and_moved_with_its_folder(
    bank: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = bank.rename(folder / "other.randes")
    assert "there is no folder" in _said(6, capsys, "inspect", moved)
    said = _said(6, capsys, "unpack", moved, "-t", "whole", "-o", folder / "x.safetensors")
    assert "other.randes.d" in said and len(said.strip().splitlines()) == 1
    (folder / "bank.randes.d").rename(folder / "other.randes.d")
    assert verify(moved).sound


@pytest.mark.parametrize("kind", ["base/", "sum/", "own/", "stats/"])
@pytest.mark.parametrize("harm", ["missing", "short", "flipped", "folder", "pipe"])
def test_a_shard_that_is_lost_or_damaged_is_named_with_the_tasks_it_hurts(
    bank: Path, folder: Path, kind: str, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = _first(bank, kind)
    data = bytearray(shard.read_bytes())
    if harm == "flipped":
        data[8 + int.from_bytes(data[:8], "little") + 1] ^= 4
        shard.write_bytes(data)
    elif harm == "short":
        shard.write_bytes(data[:-5])
    else:
        shard.unlink()
        _put_in_place(shard, harm)
    report = verify(bank, run=ONE)
    assert not report.sound and list(report.shards) == [shard.name]
    files = [file for file in (bank, *shard.parent.iterdir()) if file.is_file()]
    assert 0 < report.bytes_checked <= sum(file.stat().st_size for file in files)
    hurt = {
        "base/": {"whole", "half"},
        "sum/": {"whole", "half"},
        "own/": {"whole"},
        "stats/": set(),
    }
    assert set(report.hurt) == hurt[kind]
    assert shard.name in _said(6, capsys, "verify", bank)
    if harm != "flipped":
        assert shard.name in _said(6, capsys, "inspect", bank)
        assert shard.name in _said(6, capsys, "add", bank, source(folder, "single"))
    elif kind != "stats/":
        with Bank.open(bank) as opened, pytest.raises(BankDamaged, match="tensor"):
            opened.retrieve("whole")


def test_what_is_about_the_tensors_of_a_shard_is_checked_too(bank: Path) -> None:
    shard = _first(bank, "base/")
    data = shard.read_bytes()
    for place in (9, len(data) - 3):
        shard.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        report = verify(bank, run=ONE)
        assert report.damaged == () and list(report.shards) == [shard.name] and not report.sound
    shard.write_bytes(data)
    assert verify(bank, run=ONE).sound


def test_a_shard_is_neither_a_bank_nor_a_checkpoint(
    bank: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = _first(bank, "base/")
    assert "a shard of a bank" in _said(3, capsys, "inspect", shard)
    assert "a shard of a bank" in _said(3, capsys, "pack", shard, shard, "-o", folder / "x.randes")


def test_no_output_goes_over_a_shard(
    bank: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard, before = _first(bank, "base/"), everything(bank)
    _said(2, capsys, "unpack", bank, "-t", "half", "-o", shard, "--force")
    _said(2, capsys, "report", bank, "-o", shard, "--force")
    _said(2, capsys, "seal", bank, "--bits", "4", "-o", shard, "--force")
    assert everything(bank) == before


def test_a_link_to_a_bank_is_that_bank_and_a_linked_folder_is_read_alone(
    bank: Path, folder: Path
) -> None:
    (folder / "there").mkdir()
    link = folder / "there" / "link.randes"
    link.symlink_to(bank)
    put(link, "single", folder=folder)
    assert link.is_symlink() and "single" in Bank.open(bank).tasks
    elsewhere = (folder / "bank.randes.d").rename(folder / "elsewhere")
    (folder / "bank.randes.d").symlink_to(elsewhere)
    assert verify(bank, run=ONE).sound
    before = everything(bank)
    with pytest.raises(UsageError, match="not a folder"):
        take(bank, "single")
    (elsewhere / f"{'0' * 32}.safetensors").touch()  # of another bank, perhaps
    assert verify(bank, run=ONE, prune=True).sound
    assert (elsewhere / f"{'0' * 32}.safetensors").is_file()
    (elsewhere / f"{'0' * 32}.safetensors").unlink()
    assert everything(bank) == before
    make_bank(folder, ("half",))
    assert shards(bank) == before[1]


def test_a_bank_in_one_file_takes_the_place_of_shards_and_leaves_other_files(folder: Path) -> None:
    bank = sharded(folder, "whole")
    note = folder / "bank.randes.d" / "note.txt"
    note.write_text("mine")
    make_bank(folder, ("half",))
    assert shards(bank) == {"note.txt": b"mine"}
    note.unlink()
    sharded(folder, "whole")
    make_bank(folder, ("half",))
    assert not (folder / "bank.randes.d").exists()


def test_a_reader_keeps_the_bank_that_it_opened(bank: Path) -> None:
    with Bank.open(bank) as opened:
        before = opened.retrieve("whole")
        take(bank, "half")
        with Bank.open(bank) as later:
            assert later.tasks == ("whole",)
        after = opened.retrieve("half")
        assert opened.tasks == ("whole", "half") and after
        assert all(
            (before[name] == value).all() for name, value in opened.retrieve("whole").items()
        )


def test_an_edit_between_the_index_and_its_shards_makes_a_reader_begin_again(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, edits = LocalShard.__init__, [1]

    def late(shard: LocalShard, path: Path, size: int, *, keep: bool) -> None:
        if edits:
            edits.clear()
            take(bank, "half")
        real(shard, path, size, keep=keep)

    monkeypatch.setattr(LocalShard, "__init__", late)
    with Bank.open(bank) as opened:
        assert opened.tasks == ("whole",)
        assert opened.retrieve("whole")


def test_more_shards_than_open_files_are_opened_as_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert most_open() >= 4
    for module in ("shard_files", "shard_folder"):
        monkeypatch.setattr(f"randes_cli.files.bank.{module}.most_open", lambda: 2)
    many = sharded(folder, "whole", size=1)
    assert len(shards(many)) > 10
    with Bank.open(many) as opened:
        expected = opened.retrieve("whole")
        put(many, "half")
        with pytest.raises(BankDamaged, match="an edit meanwhile"):
            opened.retrieve("whole")
    one = make_bank(folder, ("whole",), out="one.randes")
    with Bank.open(one) as opened:
        assert all(
            (expected[name] == value).all() for name, value in opened.retrieve("whole").items()
        )


def test_a_shard_of_a_closed_bank_is_opened_no_more(bank: Path) -> None:
    with BankFile(bank) as opened:
        assert len(opened.read("base/table"))
    with pytest.raises(UsageError, match="is closed; open the bank again"):
        opened.read("base/table")


def test_prune_removes_what_the_index_does_not_name_and_nothing_else(
    bank: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, place = everything(bank), folder / "bank.randes.d"
    (place / f"{'0' * 32}.safetensors").write_bytes(b"left" * 100)
    (place / ".3.0123456789ab.randes-tmp").write_bytes(b"left" * 100)
    (place / "README.md").write_text("mine")
    assert "2 files" in _said(0, capsys, "verify", bank)
    report = json.loads(_said(0, capsys, "verify", bank, "--prune", "--json", "-q"))
    assert report["pruned"] == 800 and report["unnamed"] == []
    (place / "README.md").unlink()
    assert everything(bank) == before


def test_a_shard_of_the_same_bytes_is_not_written_again(folder: Path) -> None:
    bank = sharded(folder, "whole", "half")
    before = {path: path.stat().st_ino for path in (folder / "bank.randes.d").iterdir()}
    sharded(folder, "whole", "half")
    assert {path: path.stat().st_ino for path in (folder / "bank.randes.d").iterdir()} == before
    shard = _first(bank, "base/")
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    sharded(folder, "whole", "half")
    assert verify(bank, run=ONE).sound
    shard.unlink()
    os.mkfifo(shard)  # nobody writes to it
    sharded(folder, "whole", "half")
    assert verify(bank, run=ONE).sound


def test_shards_are_as_private_as_the_bank(folder: Path) -> None:
    bank = sharded(folder, "whole")
    bank.chmod(0o600)
    put(bank, "half")
    new = [path for path in (folder / "bank.randes.d").iterdir() if path.stat().st_mode & 0o77 == 0]
    assert new and bank.stat().st_mode & 0o777 == 0o600


def test_commands_of_the_shell_read_banks_in_shards(
    bank: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "bank.randes.d", folder / "copy.randes.d")
    shutil.copy(bank, folder / "copy.randes")
    assert json.loads(_said(0, capsys, "diff", bank, folder / "copy.randes", "--json"))["same"]
    one = make_bank(folder, ("whole", "half"), out="one.randes")
    assert json.loads(_said(0, capsys, "diff", bank, one, "--json"))["same"]
    page = folder / "report.html"
    for words in (
        ["inspect", bank],
        ["report", bank, "-o", page],
        ["unpack", bank, "--all", "-o", folder / "out"],
        ["add", bank, source(folder, "single"), "--max-shard-size", "5KB"],
        ["convert", bank, "-o", folder / "c.randes", "--single-file"],
        ["seal", bank, "--bits", "4", "-o", folder / "s.randes", "--max-shard-size", "9KB"],
    ):
        _said(0, capsys, *words)
    assert len(shards(folder / "s.randes")) > 1
    assert "say --max-shard-size" in _said(2, capsys, "convert", bank, "-o", folder / "d.randes")
    assert "write it as 5GB" in _said(
        2, capsys, "pack", page, page, "-o", page, "--max-shard-size", "x"
    )


def test_a_wrong_size_is_refused_in_python_as_well(folder: Path) -> None:
    bank = sharded(folder, "whole")
    with pytest.raises(UsageError, match="--max-shard-size"):
        sharded(folder, "whole", size=0)
    assert add(bank, [TaskInput("half", source(folder, "half"))], run=ONE).after
