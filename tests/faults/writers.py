"""Two writers and a reader of one bank."""

from __future__ import annotations

import os
from pathlib import Path

from randes_cli.api import Bank
from randes_cli.build.edit import add, remove
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.verify import verify
from randes_cli.specs import EditOptions, TaskInput
from tests.life.models import ONE, packed_afresh, source, sums, take


def _write_often(bank: Path, prefix: str, count: int) -> int:
    """Add `count` tasks of one file under new names; exit code 0 when all are in."""
    for number in range(count):
        task = TaskInput(f"{prefix}{number}", source(bank.parent, "single"))
        add(bank, [task], EditOptions(wait=600), ONE)
    return 0


def two_writers(bank: Path, count: int) -> None:
    """Two processes add `count` tasks each while this one reads; then all of them go again.

    `bank` holds ``single`` and ``whole`` of the family beside it.
    """
    before = sums(bank)
    with Bank.open(bank, run=ONE) as opened:
        exact = opened.retrieve("single")["h.0.w"].numpy().tobytes()
    children = []
    for prefix in "xy":
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _write_often(bank, prefix, count)
            finally:
                os._exit(code)
        children.append(child)
    alive, seen = set(children), []
    while alive:
        with BankFile(bank) as opened_file, Bank.open(bank, run=ONE) as opened:
            assert verify(opened_file, ONE).sound
            seen.append(len(opened.tasks))
            assert opened.retrieve("single")["h.0.w"].numpy().tobytes() == exact
        for child in list(alive):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                assert status == 0
                alive.discard(child)
    assert seen == sorted(seen) and len(set(seen)) > 1
    with BankFile(bank) as opened_file:
        names = {task.name for task in opened_file.manifest.tasks}
        assert names == {"single", "whole"} | {f"{p}{n}" for p in "xy" for n in range(count)}
        assert opened_file.manifest.next_index == 2 + 2 * count
    for prefix in "xy":
        added = [f"{prefix}{n}" for n in range(count)]
        remove(bank, added, run=ONE)
    assert sums(bank) == before
    take(bank, "single")
    assert sums(bank) == sums(packed_afresh(bank, bank.parent))
