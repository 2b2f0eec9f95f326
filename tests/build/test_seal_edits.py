"""What may still be done to a sealed bank."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli import Bank, PackOptions, TaskInput
from randes_cli.build.edit import add, remove
from randes_cli.build.seal.seal import seal
from randes_cli.errors import MismatchError, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.measure import measure
from randes_cli.ops.verify import verify
from randes_cli.specs import EditOptions
from tests.build.sealing import ONE, packed, sums


def test_add_opens_a_live_group_beside_a_sealed_one(folder: Path) -> None:
    bank = packed(folder, 3, PackOptions(bits=2))
    before = sums(bank, 0)
    add(bank, [TaskInput("t3", str(folder / "t3.safetensors"))], EditOptions(), ONE)
    with BankFile(bank) as file:
        assert file.manifest.groups == 2
        assert [task.group for task in file.manifest.tasks] == [0, 0, 0, 1]
        check = measure(file, {"t3": str(folder / "t3.safetensors")}, ONE)[0]
    assert check.cosine > 0.9999
    assert sums(bank, 0) == before
    add(bank, [TaskInput("t4", str(folder / "t4.safetensors"))], EditOptions(), ONE)
    with BankFile(bank) as file:
        assert [task.group for task in file.manifest.tasks] == [0, 0, 0, 1, 1]
    remove(bank, ["t4"], EditOptions(), ONE)
    with BankFile(bank) as file:
        assert verify(file, ONE).sound


def test_add_refuses_a_sealed_group_by_name(folder: Path) -> None:
    bank = packed(folder, 3, PackOptions(bits=2))
    with pytest.raises(MismatchError, match="sealed at 2 bits and read-only"):
        add(bank, [TaskInput("t3", str(folder / "t3.safetensors"), group=0)], EditOptions(), ONE)


def test_sealing_again_cuts_the_live_group_alone(folder: Path) -> None:
    bank = packed(folder, 3, PackOptions(bits=2))
    before = sums(bank, 0)
    add(bank, [TaskInput("t3", str(folder / "t3.safetensors"))], EditOptions(), ONE)
    report = seal(bank, None, 4, ONE)
    assert report.groups == (1,)
    assert sums(bank, 0) == before
    with BankFile(bank) as file:
        assert {g: seal.bits for g, seal in file.manifest.sealed.items()} == {0: 2, 1: 4}
        assert verify(file, ONE).sound
    with pytest.raises(UsageError, match="every group is sealed already"):
        seal(bank, None, 4, ONE)


def test_remove_from_a_sealed_group_is_refused_with_the_reason_and_forget_works(
    folder: Path,
) -> None:
    bank = packed(folder, 3, PackOptions(bits=2))
    before = sums(bank, 0)
    with pytest.raises(MismatchError, match=r"sealed at 2 bits: the sum was rounded.*--forget"):
        remove(bank, ["t0"], EditOptions(), ONE)
    remove(bank, ["t0"], EditOptions(), ONE, forget=True)
    assert sums(bank, 0) == before
    with Bank.open(bank) as opened:
        assert opened.tasks == ("t1", "t2")


def test_a_whole_sealed_group_can_go_without_checkpoints(folder: Path) -> None:
    bank = packed(folder, 4, PackOptions(bits=2, groups=2))
    kept = sums(bank, 0)
    for name in ("t1", "t3"):
        (folder / f"{name}.safetensors").unlink()
    remove(bank, ["t1", "t3"], EditOptions(), ONE)
    assert sums(bank, 0) == kept and sums(bank, 1) == {}
    add(bank, [TaskInput("t4", str(folder / "t4.safetensors"))], EditOptions(), ONE)
    with BankFile(bank) as file:
        assert file.manifest.tasks[-1].group == 1
        assert list(file.manifest.sealed) == [0]
