"""Gram matrices that are read as they are looked at are those of the array."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from randes_cli import inspect, pack
from randes_cli.errors import BankDamaged
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import GRAM
from randes_cli.plan import Rect, plan_units
from randes_cli.specs import TensorInfo, Transform
from randes_cli.stats import grams
from randes_cli.stats.grams import During, PackedGrams, StoredGrams, Summing, flat_bytes
from randes_cli.stats.stored import choose_cells, empty_statistics, merge_cells


class _Bank:
    """A bank of these matrices, whose chunks are read one at a time."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.read = values, list[int]()

    def info(self, key: str) -> TensorInfo:
        return TensorInfo(key, "F64", self.values.shape)

    def some_floats(self, key: str, chunk: int, rect: Rect) -> np.ndarray:
        self.read.append(chunk)
        return np.array(self.values.reshape(-1)[rect.start : rect.start + rect.elements])


@given(st.data())
def test_some_matrices_are_those_of_the_whole(data: Any) -> None:
    cells, tasks = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 3))
    values = np.random.default_rng(0).standard_normal((cells, 2, tasks, tasks))
    some = data.draw(st.lists(st.sampled_from(range(cells)), unique=True)) if cells else []
    group_of = np.array([data.draw(st.integers(-1, 2)) for _ in range(cells)], np.int64)
    bank = _Bank(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("randes_cli.plan.CHUNK_ELEMENTS", data.draw(st.integers(1, 40)))
        patch.setattr(grams, "_ROOM", data.draw(st.integers(1, 60)))
        table: Any = StoredGrams(bank)  # type: ignore[arg-type]
        rows = np.array(sorted(some), np.int64)
        assert np.array_equal(table[rows], values[rows])
        assert np.array_equal(During(table)[rows], values[rows, 1])
        for row in some:
            assert np.array_equal(table[row], values[row])
            assert np.array_equal(table[row, 0], values[row, 0])
        bank.read.clear()
        assert np.array_equal(np.asarray(table), values)
        assert bank.read == sorted(set(bank.read)), "each chunk is read once, in order"
        whole, made = Summing(table, group_of, 3).sums()
        summing = Summing(table, group_of, 3)
        bank.read.clear()
        for first in range(0, len(rows), 2):
            assert np.array_equal(
                summing[rows[first : first + 2]], values[rows[first : first + 2], 1]
            )
        if len(rows):
            assert np.array_equal(summing[rows[:1]], values[rows[:1], 1]), "once more"
        looked = summing.sums()
    assert np.array_equal(looked[0], whole) and np.array_equal(looked[1], made)
    assert np.allclose(whole, values.sum(axis=0))
    for group in range(3):
        assert np.allclose(made[group], values[group_of == group].sum(axis=0))
        assert np.array_equal(made[group], Summing(values, group_of, 3).sums()[1][group])


@given(st.data())
def test_half_of_symmetric_matrices_stands_for_them(data: Any) -> None:
    cells, tasks = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 4))
    values = np.random.default_rng(1).standard_normal((cells, 2, tasks, tasks))
    values = values + values.transpose(0, 1, 3, 2)
    packed: Any = PackedGrams(cells, tasks)
    packed.halves[:] = values[..., packed.upper[0], packed.upper[1]]
    assert np.array_equal(np.asarray(packed), values)
    rows = np.array(data.draw(st.lists(st.sampled_from(range(cells)))) if cells else [], np.int64)
    assert np.array_equal(packed[rows], values[rows])
    assert np.array_equal(packed[rows, 1], values[rows, 1])
    if tasks:
        assert np.array_equal(packed[:, 0, :, 0], values[:, 0, :, 0])
    whole = values.tobytes()
    for table in (packed, values):
        made = flat_bytes(table)
        assert len(made) == len(whole)
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, len(whole)))
        assert bytes(made[start:stop]) == whole[start:stop]


def test_a_damaged_matrix_is_found_where_it_is_looked_at(tmp_path: Path) -> None:
    for name, shift in (("base", 0.0), ("a", 1.0), ("b", 2.0)):
        values = np.arange(4096, dtype=np.float32).reshape(64, 64) * (1 + shift / 8)
        save_file({"w": values}, tmp_path / f"{name}.safetensors")
    path = tmp_path / "bank.randes"
    pack(tmp_path / "base.safetensors", [str(tmp_path / f"{n}.safetensors") for n in "ab"], path)
    with BankFile(path) as bank:
        place = bank.where(GRAM)
    assert place is not None
    data = bytearray(path.read_bytes())
    data[place[1] + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BankDamaged, match=r"tensor 'stats/gram' is damaged"):
        inspect(path)


@pytest.mark.parametrize(("tasks", "sizes"), [(4, [1] * 4), (5, [2, 2]), (181, [2, 2]), (182, [4])])
def test_matrices_are_kept_by_tensor_by_type_or_for_all(tasks: int, sizes: list[int]) -> None:
    """Up to a 64th of these 64 KiB, up to a mebibyte, or beyond; a pair is 16 bytes times T²."""
    base = [TensorInfo(f"h.{n}.{kind}", "F32", (64, 64)) for n in range(2) for kind in "vw"]
    units = list(plan_units(base, Transform()))
    cells = choose_cells(units, base, tasks)
    assert [len(names) for _, names in cells] == sizes
    fine = choose_cells(units, base, 1)
    values = np.arange(4.0 * 2 * 3 * 3).reshape(4, 2, 3, 3)
    merged = merge_cells(replace(empty_statistics(base, fine), grams=values), cells)
    of = {name: values[row] for row, (_, (name,)) in enumerate(fine)}
    assert merged.cells == tuple(cells)
    assert np.array_equal(merged.grams, [sum(of[name] for name in names) for _, names in cells])
