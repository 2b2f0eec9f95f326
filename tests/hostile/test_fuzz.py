"""A few thousand cases of the fuzzer; `make torture` runs 100,000."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from randes_cli.errors import BankDamaged, NewerFormat
from randes_cli.files.bank.manifest import decode
from randes_cli.files.header import parse_header
from tests.hostile.fuzz import Fuzzer


def test_only_randes_errors_escape_from_two_thousand_forged_banks(tmp_path: Path) -> None:
    fuzzer = Fuzzer(tmp_path)
    fuzzer.run(range(2000))
    assert fuzzer.met["BankDamaged"] > 1000
    assert fuzzer.met["accepted"] > 10


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_header_or_a_value_error(data: bytes) -> None:
    try:
        parse_header(data, file_size=8 + len(data))
    except ValueError as error:
        assert str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["format", "version", "base", "tasks", "stats"]), JSON))
def test_any_json_is_a_manifest_or_a_named_error(value: dict[str, object]) -> None:
    import json

    try:
        decode(json.dumps(value).encode())
    except (BankDamaged, NewerFormat) as error:
        assert str(error).startswith("manifest: ")
