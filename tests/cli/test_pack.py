"""randes pack"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from randes_cli.specs import PRESETS
from tests.cli.conftest import Result


def test_pack_writes_a_file_that_stock_safetensors_opens(bank: Path) -> None:
    with safe_open(bank, "numpy") as opened:
        assert opened.metadata() == {"format": "randes", "version": "2"}
        names = set(opened.keys())
        assert {"base/wte.weight", "sum/0/wte.weight", "own/b/head.weight", "manifest"} <= names
        for name in names:
            opened.get_tensor(name)


def test_pack_names_tasks_after_their_files_and_reports_json(
    family: Path, randes: Callable[..., Result]
) -> None:
    out = family / "x.randes"
    result = randes(
        "pack", family / "base.safetensors", family / "a.safetensors", "-o", out, "--json"
    )
    assert result.code == 0
    assert [task["name"] for task in result.json["tasks"]] == ["a"]
    assert result.json["bank_bytes"] == out.stat().st_size
    assert result.json["tasks"][0]["predicted_cosine"] == pytest.approx(1.0, abs=1e-4)
    assert result.json["peak_memory_bytes"] > 0


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("bits", [16, 8])
def test_every_preset_packs_and_unpacks(
    family: Path, randes: Callable[..., Result], preset: str, bits: int
) -> None:
    out = family / "p.randes"
    words = [family / f"{name}.safetensors" for name in ("base", "a", "c")]
    assert randes("pack", *words, "-o", out, "--transform", preset, "--bits", bits).code == 0
    assert randes("unpack", out, "--all", "-o", family / "out").code == 0
    given, got = load_file(family / "c.safetensors"), load_file(family / "out" / "c.safetensors")
    assert {k: (v.shape, v.dtype) for k, v in got.items()} == {
        k: (v.shape, v.dtype) for k, v in given.items()
    }


def test_a_dry_run_ends_as_the_run_would_where_a_task_cannot_be_packed(
    family: Path, randes: Callable[..., Result]
) -> None:
    (family / "none.safetensors").write_bytes(b"x")
    names = [family / f"{name}.safetensors" for name in ("base", "a", "none")]
    for more in (["--dry-run", "--json"], []):
        result = randes("pack", *names, "-o", family / "x.randes", *more)
        assert (result.code, "none.safetensors" in result.out + result.err) == (3, True)


def test_a_dry_run_writes_nothing_and_predicts(family: Path, randes: Callable[..., Result]) -> None:
    out = family / "dry.randes"
    words = [family / f"{name}.safetensors" for name in ("base", "a", "b")]
    result = randes("pack", *words, "-o", out, "--dry-run", "--json")
    assert result.code == 0
    assert not out.exists()
    assert result.json["dry_run"] is True
    for task in result.json["tasks"]:
        assert abs(task["predicted_cosine"] - 0.707) < 0.05


def test_an_existing_bank_is_kept_unless_forced(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    before = bank.read_bytes()
    words = ["pack", family / "base.safetensors", family / "c.safetensors", "-o", bank]
    refused = randes(*words)
    assert refused.code == 2
    assert "--force" in refused.err
    assert bank.read_bytes() == before
    assert randes(*words, "--force").code == 0
    assert bank.read_bytes() != before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["missing.safetensors"], 5, "missing.safetensors: not found"),
        (["x=a.safetensors", "x=b.safetensors"], 2, "twice"),
        (["A=a.safetensors", "a=b.safetensors"], 2, "differ only in case"),
        ([".hidden=a.safetensors"], 2, "leading"),
        (["../up=a.safetensors"], 2, "task name"),
        (["con=a.safetensors"], 2, "task name"),
        (["a.safetensors", "--transform", "magic"], 2, "--transform"),
        (["a.safetensors", "--bits", "12"], 2, "--bits"),
        (["a.safetensors", "--targets", "("], 2, "--targets"),
        (["a.safetensors", "--every", "0"], 2, "--every"),
        (["a.safetensors", "--device", "tpu"], 2, "--device must be one of auto"),
        (["a.safetensors", "--max-memory", "lots"], 2, "size"),
    ],
)
def test_refusals_are_one_line_with_their_code(
    family: Path,
    randes: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(family)
    result = randes("pack", "base.safetensors", *words, "-o", "new.randes")
    assert result.code == code
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not Path("new.randes").exists()
    assert sorted(p.name for p in family.iterdir() if p.name.startswith(".")) == []
