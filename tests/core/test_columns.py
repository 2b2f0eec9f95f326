"""Columns of tensors tell what each tensor tells by itself."""

from __future__ import annotations

from operator import attrgetter
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.columns import columns, joined, table_of, typed_table
from randes_cli.core.shuffle import layer_type, layer_types
from randes_cli.plan import superposable
from randes_cli.specs import Table, TensorInfo

_KINDS = st.tuples(
    st.sampled_from(["F32", "BF16", "I8"]), st.lists(st.integers(0, 3), max_size=2).map(tuple)
)
_TENSORS = st.dictionaries(st.text(min_size=1, max_size=3), _KINDS, max_size=9)


@given(_TENSORS, st.lists(st.text(max_size=3), max_size=4))
def test_columns_tell_what_each_tensor_tells(
    found: dict[str, tuple[str, tuple[int, ...]]], others: list[str]
) -> None:
    plain = Table({name: TensorInfo(name, *kind) for name, kind in found.items()})
    typed = typed_table(found, list(found.values()))
    whole = columns(plain)
    known = table_of(list(found), [kind[1:] for kind in whole.kinds], whole.kind_of)
    for table in (plain, typed, known):
        assert list(table.items()) == list(plain.items())
        made = columns(table)
        assert made is columns(table)
        assert made.of(attrgetter("nbytes")).tolist() == [t.nbytes for t in plain.values()]
        assert made.where(superposable).tolist() == [superposable(t) for t in plain.values()]
        names = [*others, *found]
        wanted = [list(found).index(name) if name in found else -1 for name in names]
        assert np.array_equal(made.at(names), wanted)


@given(_TENSORS, st.lists(st.text(max_size=3), max_size=3), st.integers(0, 300))
def test_a_table_of_columns_is_a_dictionary_before_and_after_its_tensors_are_made(
    found: dict[str, tuple[str, tuple[int, ...]]], others: list[str], asked: int
) -> None:
    plain = {name: TensorInfo(name, *kind) for name, kind in found.items()}
    table = typed_table(found, list(found.values()))
    for name in [*others, *found] * (asked // 10 + 1):
        assert (name in table) == (name in plain) and table.get(name) == plain.get(name)
    assert list(table) == list(plain) and len(table) == len(plain)
    assert table.keys() & others == plain.keys() & others
    assert table == plain and dict(table) == plain and {**table} == plain
    assert list(table.values()) == list(plain.values())


@given(st.lists(st.tuples(_TENSORS, st.randoms(use_true_random=False)), max_size=3))
def test_tables_are_joined_as_dictionaries_are(
    parts: list[tuple[dict[str, tuple[str, tuple[int, ...]]], Random]],
) -> None:
    wanted, tables, rows = dict[str, TensorInfo](), [], []
    for place, (found, random) in enumerate(parts):
        named = {f"{place}{name}": kind for name, kind in found.items()}
        some = sorted(random.sample(range(len(named)), random.randint(0, len(named))))
        names = [list(named)[number] for number in some]
        wanted |= {name: TensorInfo(name, *named[name]) for name in names}
        tables.append(typed_table(named, list(named.values())))
        rows.append(np.array(some, np.int64))
    made = joined(tables, rows) if tables else typed_table((), [])
    assert list(made.items()) == list(wanted.items())
    assert columns(made).at(wanted).tolist() == list(range(len(wanted)))


@given(st.lists(st.text(st.sampled_from("ab.0٣\n"), max_size=7), max_size=5), st.booleans())
def test_the_types_of_many_names_are_those_of_each(names: list[str], digits: bool) -> None:
    assert layer_types(names, any_digits=digits) == [
        layer_type(name, any_digits=digits) for name in names
    ]
