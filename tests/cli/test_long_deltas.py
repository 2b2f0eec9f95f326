"""What is said of deltas that are longer than any of a measured model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from randes_cli.core.prediction.verdict import FAR, FAR_OUT, NEAR
from tests.cli.conftest import Result

SAID = "no model with so long a delta was measured"


def packed(folder: Path, length: float, randes: Callable[..., Result]) -> Result:
    """A bank of two tasks whose deltas are so long beside their base."""
    random = torch.Generator().manual_seed(0)
    base = {f"h.{n}.weight": torch.randn(96, 64, generator=random) for n in range(2)}
    save_file(base, folder / "base.safetensors")
    for name in "ab":
        task = {k: v + length * torch.randn(v.shape, generator=random) for k, v in base.items()}
        save_file(task, folder / f"{name}.safetensors")
    inputs = [folder / f"{name}.safetensors" for name in ("base", "a", "b")]
    return randes("pack", *inputs, "-o", folder / "x.randes")


@pytest.mark.parametrize("length", [FAR / 4, FAR * 0.75, FAR * 2])
def test_shares_of_the_gain_are_not_told_as_measured_of_longer_deltas(
    length: float, tmp_path: Path, randes: Callable[..., Result]
) -> None:
    far = length > FAR
    pack, bank = packed(tmp_path, length, randes), tmp_path / "x.randes"
    inspect, report = randes("inspect", bank), randes("inspect", bank, "--json").json
    assert {task["verdict"] == FAR_OUT.word for task in report["tasks"]} == {far}
    for result in (pack, inspect):
        table = " ".join(result.out.partition("what other banks")[2].split())
        assert table
        assert (SAID in table) == far
        said = "families, the least where deltas are long)" in " ".join(result.out.split())
        assert said == (NEAR < length <= FAR)
    saving = [line for line in pack.err.splitlines() if "of the gain" in line]
    assert saving
    assert {SAID in line for line in [*saving, report["saving"]]} == {far}
    assert randes("report", bank, "-o", tmp_path / "r.html").code == 0
    assert (SAID[1:] in (tmp_path / "r.html").read_text()) == far
