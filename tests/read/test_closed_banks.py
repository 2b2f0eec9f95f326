"""A `Bank` that is closed, and one that goes to another process."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fsspec
import pytest
import torch

from randes_cli import Bank, convert
from randes_cli.errors import BankDamaged, UsageError
from tests.read.test_load_into import Model, two_tasks


@pytest.fixture(params=["one file", "shards", "one object", "shards in a store"])
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A bank of two tasks, whole or cut, here or in a store of memory."""
    made, how = two_tasks(tmp_path), str(request.param)
    if "shards" in how:
        made = tmp_path / "cut.randes"
        convert(tmp_path / "bank.randes", made, max_shard_size=2**12)
    if how[-5:] not in ("store", "bject"):
        return str(made)
    store, root = fsspec.filesystem("memory"), f"/{tmp_path.name}"
    for file in tmp_path.rglob("*.*"):
        if file.is_file():
            store.pipe(f"{root}/{file.relative_to(tmp_path)}", file.read_bytes())
    return f"memory:/{root}/{made.name}"


def test_a_closed_bank_says_so_to_whoever_reads_on(bank: str) -> None:
    opened = Bank.open(bank)
    tensors = opened.iter_tensors("one")
    next(tensors)
    opened.close()
    load = partial(opened.load_into, Model(), "two")
    for read in (partial(next, tensors), partial(opened.retrieve, "two"), load):
        with pytest.raises(UsageError, match="is closed; open"):
            read()


@pytest.mark.parametrize("how", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy])
def test_a_bank_that_another_process_gets_is_opened_there_again(
    bank: str, how: Callable[[Bank], Bank]
) -> None:
    """As workers of a DataLoader get it: the number of an open file is nothing's there."""
    with Bank.open(bank) as opened:
        wanted = opened.retrieve("one")
        with how(opened) as again:
            assert all(torch.equal(wanted[n], t) for n, t in again.retrieve("one").items())
        assert opened.retrieve("two")
        again = how(opened)
        opened.close()
        assert again.retrieve("two")
        again.close()


@pytest.mark.parametrize("cut", [False, True])
def test_a_bank_that_is_another_by_then_is_not_called_damaged(tmp_path: Path, cut: bool) -> None:
    two_tasks(tmp_path)
    file, most = tmp_path / "n.randes", 2**12 if cut else None
    convert(tmp_path / "bank.randes", file, max_shard_size=most, single_file=not cut)
    (tmp_path / "x").mkdir()
    other = two_tasks(tmp_path / "x", transform="ta")
    with Bank.open(file) as opened:
        sent = pickle.dumps(opened)
        convert(other, file, max_shard_size=most, single_file=not cut, force=True)
        with pytest.raises(BankDamaged, match="another bank than was opened; open it again"):
            pickle.loads(sent)
        os.unlink(file)
        assert opened.retrieve("one")
