"""Interference measured by type and layer, against slow arithmetic on whole tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from randes_cli import Bank, TaskInput, Transform, pack
from randes_cli.errors import MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops import spectra as module
from randes_cli.ops.spectra import interference
from randes_cli.specs import BaseStorage, PackOptions, RunOptions

RUN = RunOptions(threads=2)


def build(folder: Path, preset: str = "hankel", *, reference: bool = False) -> Path:
    random = torch.Generator().manual_seed(0)
    base = {f"h.{i}.w": torch.randn(60, 40, generator=random) for i in range(2)}
    base["h.0.b"] = torch.randn(40, generator=random)
    base["h.1.b"] = torch.randn(40, generator=random)
    shared = {n: torch.randn(v.shape, generator=random) for n, v in base.items()}
    save_file(base, folder / "base.st")
    for task in "abcd":
        save_file(
            {
                n: v + 0.02 * (shared[n] + torch.randn(v.shape, generator=random))
                for n, v in base.items()
            },
            folder / f"{task}.st",
        )
    where = BaseStorage.reference if reference else BaseStorage.embed
    options = PackOptions(Transform.from_preset(preset), base_storage=where)
    tasks = [TaskInput(t, str(folder / f"{t}.st")) for t in "abcd"]
    pack(str(folder / "base.st"), tasks, folder / "bank.randes", options)
    return folder / "bank.randes"


@pytest.mark.parametrize("held", [0, 2**24])
@pytest.mark.parametrize("reference", [False, True])
def test_measures_equal_those_of_the_whole_retrieved_state(
    tmp_path: Path, held: int, reference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD", held)
    bank = build(tmp_path, reference=reference)
    with BankFile(bank) as file:
        (found,) = interference(file, {"b": str(tmp_path / "b.st")}, RUN)
    base, true = load_file(tmp_path / "base.st"), load_file(tmp_path / "b.st")
    with Bank.open(bank) as opened:
        back = opened.retrieve("b", coefficient=1.0)
    row = next(row for row in found.rows if row.name == "h.*.w")
    names = ["h.0.w", "h.1.w"]
    d = torch.cat([(true[n] - base[n]).flatten() for n in names]).double()
    r = torch.cat([(back[n] - base[n]).flatten() for n in names]).double()
    assert row.cosine == pytest.approx(float(d @ r / d.norm() / r.norm()), rel=1e-5)
    assert row.error == pytest.approx(float((r - d).norm() / d.norm()), rel=1e-5)
    ends = [np.linalg.norm((back[n] - true[n]).numpy(), 2) for n in names]
    assert row.largest is not None
    assert any(row.largest == pytest.approx(float(end), rel=0.03) for end in ends)


def test_the_prediction_is_near_the_truth_and_random_signs_meet_the_bound(tmp_path: Path) -> None:
    with BankFile(build(tmp_path)) as file:
        (found,) = interference(file, {"c": str(tmp_path / "c.st")}, RUN)
    assert found.whole.cosine == pytest.approx(found.whole.predicted_cosine, abs=0.01)
    assert found.whole.error == pytest.approx(found.whole.predicted_error, rel=0.01)
    row = next(row for row in found.rows if row.name == "h.*.w")
    assert row.largest is not None and row.bound is not None
    assert 0.85 < row.largest / row.bound < 1.2
    assert next(row for row in found.rows if row.name == "h.*.b").largest is None


def test_layers_may_group_the_tensors(tmp_path: Path) -> None:
    with BankFile(build(tmp_path)) as file:
        (found,) = interference(file, {"c": str(tmp_path / "c.st")}, RUN, by="layer")
    assert [row.name for row in found.rows] == ["layer 0", "layer 1"]
    assert [row.tensors for row in found.rows] == [2, 2]


def test_threads_do_not_change_a_digit(tmp_path: Path) -> None:
    pairs = {t: tmp_path / f"{t}.st" for t in "ab"}
    with BankFile(build(tmp_path)) as file:
        one = interference(file, pairs, RunOptions(threads=1))
        assert one == interference(file, pairs, RunOptions(threads=2))


def test_a_checkpoint_with_other_tensors_is_refused(tmp_path: Path) -> None:
    bank = build(tmp_path)
    save_file({"h.0.w": torch.zeros(60, 40)}, tmp_path / "other.st")
    with BankFile(bank) as file, pytest.raises(MismatchError, match="other tensors than task a"):
        interference(file, {"a": str(tmp_path / "other.st")}, RUN)
