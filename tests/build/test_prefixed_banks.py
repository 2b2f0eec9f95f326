"""Tasks whose names have another prefix than the base's, through whole banks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from randes_cli.api import Bank
from randes_cli.build.edit import add, remove
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.measure import measure
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import TaskInput
from tests.build.decoder import RUN, assert_close, model, round_trip, save

PREFIXES = [("", "model."), ("module.", ""), ("_orig_mod.module.", ""), ("bert.", "encoder.")]


@pytest.mark.parametrize(("theirs", "ours"), PREFIXES)
def test_names_with_another_prefix_are_mapped_said_and_given_back(
    theirs: str, ours: str, tmp_path: Path
) -> None:
    base = {ours + name: tensor for name, tensor in model(0).items()}
    task = {theirs + name: tensor for name, tensor in model(1).items()}
    task["score.weight"] = torch.randn(3, 16)
    packed, _, (back,) = round_trip(tmp_path, base, task)
    (note,) = packed.tasks[0].notes
    assert note.startswith(f"{len(task) - 1} names have {theirs!a} where the base has {ours!a}")
    assert_close(back, task, exact=("score.weight",))
    with Bank.open(tmp_path / "bank.randes") as bank:
        assert set(bank.retrieve("t0")) == set(task)


def test_a_task_with_another_prefix_is_added_measured_and_removed(tmp_path: Path) -> None:
    base = model(0)
    round_trip(tmp_path, base, model(1))
    bank = tmp_path / "bank.randes"
    with BankFile(bank) as file:
        before = file.read_whole("sum/0/lm_head.weight").tobytes()
    wrapped = {"module." + name: tensor for name, tensor in model(2).items()}
    path = save(wrapped, tmp_path / "wrapped.safetensors")
    add(bank, [TaskInput("wrapped", str(path))])
    unpack(bank, ["wrapped"], tmp_path / "again.safetensors", UnpackOptions(), RUN)
    assert set(load_file(tmp_path / "again.safetensors")) == set(wrapped)
    with BankFile(bank) as file:
        (check,) = measure(file, {"wrapped": str(path)}, RUN)
    assert check.cosine > 0.5
    remove(bank, ["wrapped"])
    with BankFile(bank) as file:
        assert file.read_whole("sum/0/lm_head.weight").tobytes() == before
