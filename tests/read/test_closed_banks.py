"""A `Bank` that is closed, and one that goes to another process."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import pytest
import torch

from randes_cli import Bank
from randes_cli.errors import UsageError
from tests.read.test_load_into import Model, two_tasks


def test_a_closed_bank_says_so_to_whoever_reads_on(tmp_path: Path) -> None:
    opened = Bank.open(two_tasks(tmp_path))
    tensors = opened.iter_tensors("one")
    next(tensors)
    opened.close()
    load = partial(opened.load_into, Model(), "two")
    for read in (partial(next, tensors), partial(opened.retrieve, "two"), load):
        with pytest.raises(UsageError, match="is closed; open it again"):
            read()


def test_a_bank_that_another_process_gets_is_opened_there_again(tmp_path: Path) -> None:
    """As workers of a DataLoader get it: the number of an open file is nothing's there."""
    with Bank.open(two_tasks(tmp_path)) as opened:
        wanted = opened.retrieve("one")
        with pickle.loads(pickle.dumps(opened)) as copy:
            assert all(torch.equal(wanted[n], t) for n, t in copy.retrieve("one").items())
        assert opened.retrieve("two")
