"""Pairwise cosines within and across models, against those of whole tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from randes_cli import TaskInput, pack
from randes_cli.errors import MissingError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops import distribution
from randes_cli.ops.distribution import measured_distribution, stored_distribution
from randes_cli.specs import RunOptions


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, dict[str, dict[str, torch.Tensor]]]:
    random = torch.Generator().manual_seed(0)
    base = {f"h.{i}.w": torch.randn(8, 6, generator=random) for i in range(3)}
    base["bias"] = torch.randn(6, generator=random)
    deltas = {
        t: {n: 0.1 * torch.randn(v.shape, generator=random) for n, v in base.items()} for t in "abc"
    }
    save_file(base, tmp_path / "base.st")
    for task, delta in deltas.items():
        save_file({n: v + delta[n] for n, v in base.items()}, tmp_path / f"{task}.st")
    tasks = [TaskInput(t, str(tmp_path / f"{t}.st")) for t in "abc"]
    pack(str(tmp_path / "base.st"), tasks, tmp_path / "bank.randes")
    return tmp_path, deltas


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


@pytest.mark.parametrize("held", [1, 2**22])
def test_pairs_within_and_across_models_equal_those_of_whole_tensors(
    parts: tuple[Path, dict[str, dict[str, torch.Tensor]]],
    held: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, deltas = parts
    monkeypatch.setattr(distribution, "HELD", held)
    originals = {t: folder / f"{t}.st" for t in "abc"}
    with BankFile(folder / "bank.randes") as bank:
        found = measured_distribution(bank, originals, RunOptions(threads=1))
    layers, pairs = range(3), [("a", "b"), ("a", "c"), ("b", "c")]
    across = [
        cosine(deltas[x][f"h.{i}.w"], deltas[y][f"h.{i}.w"]) for i in layers for x, y in pairs
    ]
    within = [
        cosine(deltas[t][f"h.{i}.w"], deltas[t][f"h.{j}.w"])
        for t in "abc"
        for i, j in [(0, 1), (0, 2), (1, 2)]
    ]
    assert np.allclose(found.across, sorted(across), atol=1e-5)
    assert np.allclose(found.within, sorted(within), atol=1e-5)


def test_stored_statistics_give_the_same_pairs_across_models(
    parts: tuple[Path, dict[str, dict[str, torch.Tensor]]],
) -> None:
    folder, deltas = parts
    with BankFile(folder / "bank.randes") as bank:
        found = stored_distribution(bank)
    kinds = {name.split(".")[-1] for cell in bank.manifest.cells for name in cell[1]}
    assert kinds == {"w", "bias"}
    cells = [names for _, names in bank.manifest.cells if names != ("bias",)]
    wanted = []
    for names in cells:
        whole = {t: torch.cat([deltas[t][n].flatten() for n in names]) for t in "abc"}
        wanted += [cosine(whole[x], whole[y]) for x, y in [("a", "b"), ("a", "c"), ("b", "c")]]
    assert np.allclose(found.across, wanted, atol=0.01)  # a delta is rounded to a 64th of its RMS
    assert len(found.during) == len(wanted)
    assert found.within == ()


def test_unknown_tasks_are_refused(
    parts: tuple[Path, dict[str, dict[str, torch.Tensor]]],
) -> None:
    folder, _ = parts
    path = str(folder / "a.st")
    with BankFile(folder / "bank.randes") as bank, pytest.raises(MissingError):
        measured_distribution(bank, {"nobody": path}, RunOptions(threads=1))


def test_of_more_layers_than_are_looked_at_some_are_from_first_to_last(
    parts: tuple[Path, dict[str, dict[str, torch.Tensor]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, deltas = parts
    monkeypatch.setattr(distribution, "MOST_LAYERS", 2)
    with BankFile(folder / "bank.randes") as bank:
        originals = {t: folder / f"{t}.st" for t in "abc"}
        found = measured_distribution(bank, originals, RunOptions(threads=1))
    within = [cosine(deltas[t]["h.0.w"], deltas[t]["h.1.w"]) for t in "abc"]
    assert np.allclose(found.within, sorted(within), atol=1e-5) and len(found.across) == 2 * 3
