"""randes seal"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open

from tests.cli.conftest import Result


def test_a_sealed_bank_is_smaller_and_a_valid_safetensors_file(
    bank: Path, tmp_path: Path, randes: Callable[..., Result]
) -> None:
    out = tmp_path / "small.randes"
    result = randes("seal", bank, "--bits", 2, "-o", out, "--json")
    assert result.code == 0, result.err
    assert result.json["bytes_after"] == out.stat().st_size < bank.stat().st_size
    with safe_open(out, "numpy") as opened:
        assert opened.get_tensor("sum/0/h.0.w.weight").nbytes == 64 * 48 // 4
        assert opened.get_tensor("scale/0/h.0.w.weight").shape == (64 + 48,)
    assert randes("verify", out).code == 0
    assert "sealed at 2 bits" in " ".join(randes("inspect", out).out.split())


def test_a_dry_run_writes_nothing_and_tells_the_same_size(
    bank: Path, tmp_path: Path, randes: Callable[..., Result]
) -> None:
    out = tmp_path / "small.randes"
    dry = randes("seal", bank, "--bits", 4, "-o", out, "--dry-run", "--json").json
    assert not out.exists()
    real = randes("seal", bank, "--bits", 4, "-o", out, "--json").json
    assert dry["bytes_after"] == real["bytes_after"] == out.stat().st_size
    for supposed, measured in zip(dry["after"], real["after"], strict=True):
        for key in ("predicted_cosine", "kept", "kept_low", "kept_high"):
            assert abs(supposed.pop(key) - measured.pop(key)) < 0.01
        assert "measured while" in supposed.pop("approximate")
        assert measured.pop("approximate") == ""
        assert supposed == measured


def test_an_output_that_exists_is_refused_and_so_is_no_output(
    bank: Path, randes: Callable[..., Result]
) -> None:
    assert "exists" in randes("seal", bank, "--bits", 2, "-o", bank).err
    assert "--in-place" in randes("seal", bank, "--bits", 2).err
    assert "say --bits 8, 4" in randes("seal", bank, "--in-place").err
    two, fit = bank.with_name("two.randes"), bank.with_name("fit.randes")
    assert randes("seal", bank, "--bits", 2, "-o", two).code == 0
    size = f"{two.stat().st_size / 1000}kB"
    assert randes("seal", bank, "--fit", size, "-o", fit).code == 0
    assert fit.read_bytes() == two.read_bytes()
    assert "say one of them" in randes("seal", bank, "--in-place", "--bits=2", "--fit=1MB").err
    assert "must be 8, 4, 3, 2 or 1" in randes("seal", bank, "--bits", 5, "--in-place").err


def test_sealing_in_place_replaces_the_bank(bank: Path, randes: Callable[..., Result]) -> None:
    before = bank.stat().st_size
    assert randes("seal", bank, "--bits", 1, "--in-place").code == 0
    assert bank.stat().st_size < before
    again = randes("seal", bank, "--bits", 1, "--in-place")
    assert (again.code, "sealed already" in again.err) == (2, True)


def test_pack_writes_two_bits_at_once(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    out = family / "two.randes"
    words = ["pack", family / "base.safetensors", family / "a.safetensors", "-o", out, "--bits", 2]
    assert randes(*words, "--dry-run").code == 0
    report = randes(*words, "--json").json
    assert report["bank_bytes"] == out.stat().st_size
    assert "sealed at 2 bits" in randes("inspect", out).out
