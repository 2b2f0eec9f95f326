"""randes add and remove"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open

from tests.cli.conftest import Result


def sums(bank: Path) -> dict[str, bytes]:
    with safe_open(bank, "numpy") as opened:
        return {
            name: opened.get_tensor(name).tobytes()
            for name in opened.keys()  # noqa: SIM118
            if name.startswith("sum/")
        }


def test_remove_after_add_restores_the_superposition(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    before = sums(bank)
    assert randes("add", bank, family / "c.safetensors").code == 0
    assert sums(bank) != before
    report = randes("inspect", bank, "--json").json
    assert [(task["name"], task["index"]) for task in report["tasks"]] == [
        ("a", 0),
        ("b", 1),
        ("c", 2),
    ]
    assert randes("remove", bank, "--task", "c").code == 0
    assert sums(bank) == before


def test_an_index_is_never_used_twice(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    for _ in range(2):
        assert randes("add", bank, family / "c.safetensors").code == 0
        assert randes("remove", bank, "--task", "c").code == 0
    assert randes("inspect", bank, "--json").json["next_index"] == 4


def test_a_dry_run_shows_both_predictions_and_changes_nothing(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    before = bank.read_bytes()
    result = randes("add", bank, family / "c.safetensors", "--dry-run", "--json")
    assert bank.read_bytes() == before
    assert [task["name"] for task in result.json["after"]] == ["a", "b", "c"]
    assert (
        result.json["after"][0]["predicted_cosine"] < result.json["before"][0]["predicted_cosine"]
    )


def test_a_task_that_takes_a_place_says_whose_and_how(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    (family / "elsewhere").mkdir()
    original = (family / "a.safetensors").rename(family / "elsewhere" / "a.safetensors")
    words = ["add", bank, f"a={family / 'c.safetensors'}", "--replace"]
    assert randes(*words).code == 5
    dry = randes(*words, "--forget", "--dry-run")
    assert "would forget a: the record alone goes, " in " ".join(dry.err.split())
    done = randes(*words, "--checkpoint", original)
    assert (done.code, "forgot" in done.err) == (0, False)
    done = randes("add", bank, f"b={family / 'c.safetensors'}", "--replace", "--forget")
    assert "forgot b: the record alone is gone, " in " ".join(done.err.split())


def test_refusals(bank: Path, family: Path, randes: Callable[..., Result]) -> None:
    (family / "elsewhere").mkdir()
    original = (family / "a.safetensors").rename(family / "elsewhere" / "a.safetensors")
    both = ["remove", bank, "a", "b", "--checkpoint"]
    for words, code, said in (
        (["add", bank, f"a={family / 'c.safetensors'}"], 2, "already in the bank"),
        (["add", bank, family / "none.safetensors"], 5, "not found"),
        (["remove", bank, "-t", "a"], 5, "--checkpoint"),
        (["remove", bank, "-t", "a", "--checkpoint", family / "c.safetensors"], 4, "not the"),
        (["remove", bank, "-t", "zz"], 5, "no task"),
        (["remove", bank, "a", *2 * ["--checkpoint", original]], 2, "names a task twice"),
        ([*both, original], 2, "say NAME=PATH"),
        ([*both, f"zz={original}"], 2, "say NAME=PATH"),
    ):
        before = bank.read_bytes()
        result = randes(*words)
        assert (result.code, len(result.err.strip().splitlines())) == (code, 1), result.err
        assert said in result.err
        assert bank.read_bytes() == before
    assert randes("remove", bank, "-t", "a", "--checkpoint", original).code == 0


def test_bytes_that_were_not_counted_are_not_told_of_as_none(
    bank: Path, randes: Callable[..., Result]
) -> None:
    forgotten = randes("remove", bank, "b", "--forget")
    assert forgotten.code == 0
    last = forgotten.err.splitlines()[-1]
    assert last.startswith("wrote ") and "read" not in last
