"""Damage of every kind is found, named, and never passes into a retrieved tensor."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from randes_cli import TuneOptions, tune
from randes_cli.build.edit import remove
from randes_cli.build.jobs.copies import rewrite_manifest
from randes_cli.build.seal.seal import seal
from randes_cli.cli.main import run
from randes_cli.errors import BankDamaged, RandesError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.verify import verify
from randes_cli.specs import RunOptions
from tests.hostile.flips import flip_bytes, is_found
from tests.hostile.small import make_small_bank
from tests.life import models

ONE = RunOptions(threads=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_bank(tmp_path_factory.mktemp("small"))


def test_a_flipped_bit_of_every_byte_is_found_and_none_reaches_a_tensor(
    small: Path, tmp_path: Path
) -> None:
    assert flip_bytes(small, tmp_path, lambda at: 1 << (at % 8)) == small.stat().st_size


def test_every_truncation_is_found(small: Path, tmp_path: Path) -> None:
    whole, path = small.read_bytes(), tmp_path / "cut.randes"
    path.write_bytes(whole)
    for length in reversed(range(len(whole))):
        os.truncate(path, length)
        with pytest.raises(BankDamaged, match=r"cut\.randes"):
            BankFile(path)


@pytest.mark.parametrize("more", [b"\0", b"x" * 100, bytes(2**20)], ids=len)
def test_bytes_after_the_end_are_found(small: Path, tmp_path: Path, more: bytes) -> None:
    path = tmp_path / "longer.randes"
    path.write_bytes(small.read_bytes() + more)
    with pytest.raises(BankDamaged, match="followed by other bytes"):
        BankFile(path)


@pytest.mark.parametrize("size", [1, 16, 512])
def test_zeros_in_the_middle_are_found(small: Path, tmp_path: Path, size: int) -> None:
    whole, path = small.read_bytes(), tmp_path / "holes.randes"
    for at in range(0, len(whole) - size, max(5, size // 2)):
        if any(whole[at : at + size]):
            path.write_bytes(whole[:at] + bytes(size) + whole[at + size :])
            assert is_found(path), f"{size} zeros from byte {at}"


def test_a_damaged_bank_is_told_from_a_bad_checkpoint_whatever_its_name(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = tmp_path / "model.safetensors"
    renamed.write_bytes(small.read_bytes()[:-10])
    assert run(["verify", str(renamed)]) == 6
    assert "truncated" in capsys.readouterr().err
    checkpoint = tmp_path / "cut.safetensors"
    checkpoint.write_bytes((small.parent / "base.safetensors").read_bytes()[:-10])
    assert run(["verify", str(checkpoint)]) == 3
    assert run(["verify", str(small.parent / "base.safetensors")]) == 3


@pytest.fixture
def family_bank(tmp_path: Path) -> Path:
    return models.make_bank(models.write_family(tmp_path), ("whole", "single"))


def _damage(path: Path, key: str) -> None:
    with BankFile(path) as bank:
        start, size = bank.header.starts[key], bank.info(key).nbytes
    data = bytearray(path.read_bytes())
    data[start + size // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("key", "hurt"),
    [
        ("own/whole/head.weight", ["whole"]),
        ("base/h.0.w", ["single", "whole"]),
        ("base/ids", ["single", "whole"]),
        ("sum/0/h.1.w", ["single", "whole"]),
        ("sum/0/h.0.w", ["whole"]),
        ("stats/norms", []),
        ("stats/gram", []),
    ],
)
def test_damage_is_named_with_the_tasks_it_hurts_and_the_others_come_back(
    family_bank: Path,
    tmp_path: Path,
    key: str,
    hurt: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _damage(family_bank, key)
    assert run(["verify", str(family_bank), "--json"]) == 6
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["damaged"] == [key]
    assert sorted(report["hurt"]) == hurt
    assert sorted(report["whole"]) == sorted({"whole", "single"} - set(hurt))
    for name in ("whole", "single"):
        out = tmp_path / f"out-{name}.safetensors"
        words = ["unpack", str(family_bank), "--task", name, "-o", str(out), "-q"]
        assert run(words) == (6 if name in hurt else 0)
        assert out.exists() == (name not in hurt)
        if name in hurt:
            said = capsys.readouterr().err
            assert repr(key) in said and name in said and "--force" in said
            assert run([*words, "--force", "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["tasks"][0]["damaged"] == [key]


@pytest.mark.parametrize("device", ["auto", "cpu-torch"])
def test_edits_refuse_to_build_on_damage(
    family_bank: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "ONE", RunOptions(threads=1, device=device))
    for key in ("sum/0/h.1.w", "sum/0/table", "base/h.1.w", "stats/gram"):
        whole = family_bank.read_bytes()
        _damage(family_bank, key)
        damaged = family_bank.read_bytes()
        with pytest.raises(BankDamaged, match=key):
            models.put(family_bank, "half")
        with pytest.raises(BankDamaged, match=key):
            models.take(family_bank, "single")
        assert family_bank.read_bytes() == damaged
        family_bank.write_bytes(whole)


def test_damage_in_what_an_edit_only_copies_is_not_carried_over(family_bank: Path) -> None:
    """Every tensor in turn: whatever an edit copies or computes with has been checked."""
    sound = family_bank.read_bytes()
    with BankFile(family_bank) as bank:
        keys = [k for k, t in bank.header.tensors.items() if k not in ("manifest", "checks")]
        keys = [key for key in keys if bank.info(key).nbytes and not key.startswith("align/")]
    edits: dict[str, Callable[[], object]] = {
        "add": lambda: models.put(family_bank, "half"),
        "remove": lambda: models.take(family_bank, "single"),
        "forget": lambda: remove(family_bank, ["single"], run=ONE, forget=True),
        "tune": lambda: tune(family_bank, lambda path, name: 1.0, TuneOptions((0.5,)), ONE),
        "rewrite": lambda: rewrite_manifest(family_bank, lambda manifest: manifest),
        "seal": lambda: seal(family_bank, None, 4, ONE),
    }
    carried = []
    for name, edit in edits.items():
        for key in keys:
            family_bank.write_bytes(sound)
            _damage(family_bank, key)
            damaged = family_bank.read_bytes()
            try:
                edit()
            except BankDamaged as error:
                assert repr(key) in str(error) and family_bank.read_bytes() == damaged
                continue
            carried.append((name, key))
            with BankFile(family_bank) as bank:
                assert verify(bank, ONE).sound, (name, key)
    # What an edit has no need of, it may do without: the new bank is sound all the same.
    assert all(key.startswith(("stats/", "own/single", "sum/")) for _, key in carried), carried


def test_a_task_whose_own_tensor_is_damaged_can_be_removed(family_bank: Path) -> None:
    _damage(family_bank, "own/whole/head.weight")
    with pytest.raises(BankDamaged, match=r"'own/whole/head\.weight' is damaged"):
        models.put(family_bank, "half")
    models.take(family_bank, "whole")
    models.put(family_bank, "half")
    with BankFile(family_bank) as bank:
        assert verify(bank, ONE).sound


def test_inspect_of_damaged_statistics_says_what_is_damaged(
    family_bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _damage(family_bank, "stats/norms")
    assert run(["inspect", str(family_bank)]) == 6
    said = capsys.readouterr().err
    assert "bank.randes" in said and "'stats/norms' is damaged" in said


def test_a_sector_that_cannot_be_read_is_damage_with_a_name(
    family_bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BankFile(family_bank) as bank:
        start, real = bank.header.starts["base/table"], os.preadv

        def read(fd: int, views: list[memoryview], at: int) -> int:
            if at == start:
                raise OSError(5, "Input/output error")
            return real(fd, views, at)

        monkeypatch.setattr(os, "preadv", read)
        report = verify(bank, ONE)
    assert report.damaged == ("base/table",)
    assert sorted(report.hurt) == ["single", "whole"]


def test_quick_checks_header_manifest_and_statistics_alone(family_bank: Path) -> None:
    _damage(family_bank, "base/table")
    with BankFile(family_bank) as bank:
        assert verify(bank, ONE, quick=True).sound
        assert not verify(bank, ONE).sound


def test_every_error_has_one_line(family_bank: Path) -> None:
    _damage(family_bank, "sum/0/h.1.w")
    with pytest.raises(RandesError) as caught:
        models.put(family_bank, "half")
    assert "\n" not in str(caught.value)
