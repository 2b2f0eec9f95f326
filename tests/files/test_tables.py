"""Checkpoints with one header share its table, and what is found out about it is found once."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from randes_cli.build.inputs.tasks import fit_to
from randes_cli.errors import CheckpointError
from randes_cli.files.checkpoint import shared
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.header import parse_header
from randes_cli.files.json_text import encode_header
from randes_cli.files.source import ZeroBase
from randes_cli.fit import fit_task
from randes_cli.specs import Table, TensorInfo, Tensors, once


def _file(path: Path, values: float, names: str = "ab") -> Path:
    save_file({name: np.full((3, 4), values, np.float32) for name in names}, path)
    return path


def test_files_with_one_header_share_it_while_one_of_them_is_open(tmp_path: Path) -> None:
    first, second = (_file(tmp_path / f"{n}.safetensors", n) for n in (1.0, 2.0))
    with open_checkpoint(str(first)) as one, open_checkpoint(str(second)) as other:
        assert one.tensors is other.tensors
        assert one.read is not other.read
        out = np.empty(48, np.uint8)
        other.read("b", 0, out)
        assert (out.view(np.float32) == 2.0).all()
    data = encode_header([TensorInfo("x", "F32", (2,))], {})[8:]
    found = parse_header(data)
    assert parse_header(data) is found
    known = weakref.ref(found)
    del found
    gc.collect()
    assert known() is None


def test_a_shorter_file_with_the_same_header_is_truncated_all_the_same(tmp_path: Path) -> None:
    whole = _file(tmp_path / "whole.safetensors", 1.0)
    short = tmp_path / "short.safetensors"
    short.write_bytes(whole.read_bytes()[:-1])
    with open_checkpoint(str(whole)), pytest.raises(CheckpointError, match="truncated"):
        open_checkpoint(str(short))


def test_a_table_is_asked_once_and_other_tensors_every_time() -> None:
    asked: Counter[str] = Counter()

    def names(tensors: Tensors) -> list[str]:
        asked["names"] += 1
        return list(tensors)

    plain = {"a": TensorInfo("a", "F32", (2,))}
    table = Table(plain)
    assert [once(names, one) for one in (table, table, plain, plain)] == [["a"]] * 4
    assert asked["names"] == 3


_NAMES = ["w.weight", "bn.running_var", "embed.weight", "ids", "bias", "x.weight_u", "s"]
_INFOS = st.dictionaries(
    st.sampled_from(_NAMES),
    st.tuples(
        st.sampled_from(["F32", "BF16", "I64"]), st.sampled_from([(), (1,), (0, 3), (4,), (3, 5)])
    ),
    min_size=1,
)


@given(_INFOS, st.sets(st.sampled_from(_NAMES)), st.sets(st.sampled_from(_NAMES)))
def test_a_task_with_the_table_of_its_base_fits_as_one_with_an_equal_table(
    kinds: dict[str, tuple[str, tuple[int, ...]]], wanted: set[str], asked: set[str]
) -> None:
    table = Table({name: TensorInfo(name, *kind) for name, kind in kinds.items()})
    floats = {n for n, t in table.items() if t.dtype != "I64" and t.elements > 1}
    names, reasons = wanted & floats, dict.fromkeys(asked, "as asked")
    shared_table = fit_task(table, table, names, reasons)
    copied = fit_task(table, dict(table), names, reasons)
    assert shared_table == copied
    assert list(shared_table.exact.items()) == list(copied.exact.items())
    if copied.matched:
        base, task = ZeroBase("base", table), ZeroBase("task", table)
        assert fit_to(base, task, names, reasons) == copied


def _by_content(path: Path) -> set[frozenset[str]]:
    """Names of equal tensors, as a dictionary of all bytes has them."""
    found: dict[object, set[str]] = {}
    with open_checkpoint(str(path)) as source:
        for name, tensor in source.tensors.items():
            raw = np.empty(tensor.nbytes, np.uint8)
            source.read(name, 0, raw)
            size = raw.nbytes // max(1, tensor.elements)
            constant = len({bytes(raw[at : at + size]) for at in range(0, len(raw), size)}) == 1
            if tensor.elements > 1 and not constant:
                found.setdefault((tensor.dtype, tensor.shape, raw.tobytes()), set()).add(name)
    return {frozenset(names) for names in found.values() if len(names) > 1}


@pytest.mark.parametrize("seed", range(6))
def test_equal_tensors_among_many_small_ones_are_those_with_equal_bytes(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    shapes = [(2,), (3, 5), (5, 3), (7,), (200,), (80, 60), (4100,)]
    pool = {shape: rng.integers(0, 9, (4, *shape)).astype(np.int16) for shape in shapes}
    for shape in shapes:  # the same in the middle, where tensors are looked at, and not elsewhere
        half = pool[shape][0].size // 2
        pool[shape][1].flat[half:] = pool[shape][0].flat[half:]
        pool[shape][2] = 1
    state = {}
    for number in range(150):
        shape = shapes[rng.integers(len(shapes))]
        state[f"t{number}"] = np.ascontiguousarray(pool[shape][rng.integers(4)])
    path = tmp_path / "many.safetensors"
    save_file(state, path)
    monkeypatch.setattr(shared, "_TOGETHER", 7)
    with open_checkpoint(str(path)) as source:
        found, order = shared.equal_tensors(source), list(source.tensors)
    assert {frozenset(names) for names in found} == _by_content(path)
    assert all(names == sorted(names, key=order.index) for names in found)
