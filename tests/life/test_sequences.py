"""Whatever the sequence of edits, a bank is what packing its surviving tasks would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from randes_cli.files.bank.file import BankFile
from randes_cli.specs import BaseStorage
from randes_cli.stats.stored import stored_statistics
from randes_cli.stats.summaries import summaries
from tests.life.models import (
    NAMES,
    make_bank,
    options,
    packed_afresh,
    put,
    sums,
    take,
    write_family,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("family"))


def _toggle(bank: Path, here: list[str], name: str) -> None:
    if name in here:
        take(bank, name)
        here.remove(name)
    else:
        put(bank, name)
        here.append(name)


def _own(bank: Path) -> dict[str, bytes]:
    with BankFile(bank) as opened:
        keys = [key for key in opened.header.tensors if key.startswith(("own/", "base/"))]
        return {key: opened.read_whole(key).tobytes() for key in keys}


@pytest.mark.parametrize("preset", ["two-sided", "hankel", "srsf", "shift"])
@pytest.mark.parametrize("bits", [16, 8])
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    start=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
    steps=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6),
)
def test_a_bank_depends_on_its_surviving_tasks_alone(
    folder: Path, preset: str, bits: int, start: list[str], steps: list[str]
) -> None:
    bank = make_bank(folder, tuple(start), options(preset, bits))
    here = list(start)
    for name in steps:
        _toggle(bank, here, name)
    if not here:
        assert sums(bank) == {}
        return
    fresh = packed_afresh(bank, folder)
    assert sums(bank) == sums(fresh)
    assert _own(bank) == _own(fresh)
    with BankFile(bank) as edited, BankFile(fresh) as new:
        assert edited.manifest.tasks == new.manifest.tasks
        left, right = stored_statistics(edited), stored_statistics(new)
        assert not left.estimated
        assert np.array_equal(left.known.norms, right.known.norms)
        assert left.cells == right.cells
        assert np.array_equal(left.grams, right.grams)
        assert summaries(edited.manifest, left) == summaries(new.manifest, right)


def test_fifty_cycles_of_add_and_remove_leave_every_superposition_bit_identical(
    folder: Path,
) -> None:
    bank = make_bank(folder, ("whole", "single"), options(bits=8), out="cycles.randes")
    before = sums(bank)
    for cycle in range(50):
        name = ("half", "sparse", "shrunk")[cycle % 3]
        put(bank, name)
        take(bank, name)
        assert sums(bank) == before
    with BankFile(bank) as opened:
        assert opened.manifest.next_index == 52


def test_the_order_of_additions_does_not_matter_to_the_superposition(folder: Path) -> None:
    made = []
    for order in (("whole", "half", "shrunk"), ("shrunk", "whole", "half")):
        bank = make_bank(folder, NAMES, out="order.randes")
        for name in order:
            take(bank, name)
        made.append(sums(bank))
    assert made[0] == made[1]


def test_an_emptied_bank_takes_tasks_again_and_gives_their_old_steps(folder: Path) -> None:
    bank = make_bank(folder, NAMES, out="emptied.randes")
    with BankFile(bank) as opened:
        steps = dict(opened.manifest.steps)
    take(bank, *NAMES)
    assert sums(bank) == {}
    with BankFile(bank) as opened:
        assert opened.manifest.tasks == ()
        assert opened.manifest.steps == steps
    put(bank, "sparse", "single")
    assert sums(bank) == sums(packed_afresh(bank, folder))
    assert set(sums(bank)) == {"sum/0/h.1.w", "sum/0/table"}


def test_a_bank_whose_base_lies_outside_is_edited_alike(folder: Path) -> None:
    chosen = options("srsf", base_storage=BaseStorage.reference)
    bank = make_bank(folder, ("whole", "single"), chosen, out="outside.randes")
    before = sums(bank)
    put(bank, "half")
    assert sums(bank) == sums(packed_afresh(bank, folder))
    take(bank, "half")
    assert sums(bank) == before
