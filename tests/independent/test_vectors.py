"""The documents of the format suffice: a reader written from them alone reads every vector."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import xxhash

from tests.independent.container import BankError
from tests.independent.reader import Bank

VECTORS = Path(__file__).parents[2] / "docs" / "vectors"
INDEX = {
    f"{folder.name}/{name}": entry
    for folder in sorted(VECTORS.iterdir())
    for name, entry in json.loads((folder / "index.json").read_text("utf-8")).items()
}
GOOD = [name for name, entry in INDEX.items() if "tasks" in entry]
BAD = [name for name, entry in INDEX.items() if "breaks" in entry]


def open_vector(name: str) -> Bank:
    path, outside = VECTORS / f"{name}.randes", INDEX[name].get("base")
    return Bank(path, path.parent / outside if outside else None)


@pytest.mark.parametrize("name", GOOD)
def test_what_the_documents_say_comes_back_is_what_comes_back(name: str) -> None:
    bank, entry = open_vector(name), INDEX[name]
    assert list(bank.tasks) == list(entry["tasks"])
    for task, expected in entry["tasks"].items():
        found = bank.retrieve(task, entry.get("coefficient"))
        assert {
            tensor: [dtype, list(shape), xxhash.xxh3_128(data).hexdigest()]
            for tensor, (dtype, shape, data) in found.items()
        } == expected


@pytest.mark.parametrize("name", BAD)
def test_a_bank_that_breaks_a_rule_is_refused(name: str) -> None:
    with pytest.raises(BankError):
        open_vector(name)


def test_every_vector_is_in_its_index() -> None:
    banks = {str(path.relative_to(VECTORS).with_suffix("")) for path in VECTORS.glob("*/*.randes")}
    assert banks == set(INDEX)


@pytest.mark.parametrize("module", ["container", "files", "numbers", "reader", "streams"])
def test_the_independent_reader_imports_nothing_of_the_package(module: str) -> None:
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text("utf-8"))
    named = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    named |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not any(name.split(".")[0] == "randes_cli" for name in named)
