"""Columns of tensors tell what each tensor tells by itself."""

from __future__ import annotations

from operator import attrgetter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.columns import columns, table_of, typed_table
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


@given(st.lists(st.text(st.sampled_from("ab.0٣\n"), max_size=7), max_size=5), st.booleans())
def test_the_types_of_many_names_are_those_of_each(names: list[str], digits: bool) -> None:
    assert layer_types(names, any_digits=digits) == [
        layer_type(name, any_digits=digits) for name in names
    ]
