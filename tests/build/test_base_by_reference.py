"""A base that stays outside the bank."""

from __future__ import annotations

import pytest

from randes_cli import Bank, PackOptions
from randes_cli.errors import MismatchError, MissingError
from randes_cli.files.bank.file import BankFile
from randes_cli.specs import BaseStorage
from tests.checkpoints import (
    Packer,
    perturbed,
    retrieve,
    same_bits,
    save,
    small_model,
)

# The base outside the bank


REFERENCE = PackOptions(base_storage=BaseStorage.reference)


def test_a_base_by_reference_stays_outside_and_retrieval_is_the_same(packer: Packer) -> None:
    base = small_model()
    tasks = {f"t{k}": perturbed(base, seed=k) for k in range(2)}
    inside = packer.pack(base, tasks, out="inside.randes")
    outside = packer.pack(base, tasks, REFERENCE, out="outside.randes")
    with BankFile(outside) as opened:
        assert not any(key.startswith("base/") for key in opened.header.tensors)
    assert outside.stat().st_size < inside.stat().st_size - sum(t.nbytes for t in base.values()) / 2
    left, right = retrieve(inside, "t1"), retrieve(outside, "t1")
    assert all(same_bits(left[name], right[name]) for name in tasks["t1"])


def test_a_base_of_other_values_is_refused(packer: Packer) -> None:
    base = small_model()
    bank = packer.pack(base, {"t": perturbed(base, seed=1)}, REFERENCE)
    base["a.weight"][0, 0] += 1
    wrong = save(base, packer.folder / "wrong.safetensors")
    refused = pytest.raises(MismatchError, match=r"tensor 'a\.weight' has other values")
    with Bank.open(bank, base=str(wrong)) as opened, refused:
        opened.retrieve("t")


def test_a_base_of_other_shapes_is_refused(packer: Packer) -> None:
    bank = packer.pack(small_model(), {"t": perturbed(small_model(), seed=1)}, REFERENCE)
    wrong = save(small_model(rows=41), packer.folder / "wrong.safetensors")
    with pytest.raises(MismatchError, match="not the base of"):
        Bank.open(bank, base=str(wrong))


def test_a_base_that_is_gone_is_missed_by_name(packer: Packer) -> None:
    bank = packer.pack(small_model(), {"t": perturbed(small_model(), seed=1)}, REFERENCE)
    (packer.folder / "base.safetensors").unlink()
    with pytest.raises(MissingError, match=r"base 'base\.safetensors' is outside the bank"):
        Bank.open(bank)
