"""The documents' banks: the good ones verify, and those that break a rule are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result

VECTORS = Path(__file__).parents[2] / "docs" / "vectors"
INDEX = {
    f"{folder.name}/{name}": entry
    for folder in sorted(VECTORS.iterdir())
    for name, entry in json.loads((folder / "index.json").read_text("utf-8")).items()
}
BAD = [name for name, entry in INDEX.items() if "breaks" in entry]
GOOD = [name for name, entry in INDEX.items() if "tasks" in entry and "base" not in entry]


@pytest.mark.parametrize("name", BAD)
def test_a_bank_that_breaks_a_rule_ends_as_damaged_or_newer(
    name: str, randes: Callable[..., Result], tmp_path: Path
) -> None:
    bank = shutil.copy(VECTORS / f"{name}.randes", tmp_path / "bank.randes")
    newer = {"bad-newer-version", "bad-unknown-feature"}
    assert randes("verify", bank).code == (10 if name.split("/")[1] in newer else 6)


@pytest.mark.parametrize("name", GOOD)
def test_a_bank_of_the_documents_verifies(name: str, randes: Callable[..., Result]) -> None:
    assert randes("verify", VECTORS / f"{name}.randes").code == 0
