"""The short form of `make torture`, and the table that its long form wrote."""

from __future__ import annotations

from pathlib import Path

from tests.torture.run import TABLE, main, table

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_short_form_finds_no_fault_and_fills_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- torture -->\n<!-- end of torture -->\nafter\n")
    only = [name for name in TABLE if name != "fresh"]  # a test of its own does that
    found = main(["--short", "--folder", str(tmp_path), "--document", str(page), "--only", *only])
    lines = page.read_text().splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == only
    assert all(one.times > 0 for one in found.values())
    assert (lines[0], lines[-1]) == ("before", "after")


def test_the_document_has_a_line_for_every_part() -> None:
    page = PAGE.read_text("utf-8")
    assert table(page, {}) == page
    for name in TABLE:
        assert f"\n| `{name}` |" in page, f"run: make torture (no line for {name})"
