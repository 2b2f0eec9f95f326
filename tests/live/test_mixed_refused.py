"""What a mixed batch refuses, and how it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn

import randes_cli
from randes_cli import TaskInput, pack
from randes_cli.errors import MismatchError, MissingError, UsageError
from tests.live.many import (
    TASKS,
    attached,
    bank_of,
    options,
)
from tests.models import Made, gpt2, perturb


def test_names_are_checked_and_the_nearest_is_said(tmp_path: Path) -> None:
    bank = bank_of(gpt2, tmp_path)
    mixed = attached(bank)
    ids = gpt2()[1]["input_ids"]
    with (
        pytest.raises(MissingError, match=r"'car' \(did you mean cars\?\); it has cars, sun"),
        mixed.tasks(["sun", "car"]),
    ):
        pass
    with pytest.raises(MissingError, match=r"did you mean sun\?"):
        mixed(ids, adapter_names=["snu"])
    with pytest.raises(MissingError, match=r"did you mean cars\?"):
        attached(bank, tasks=["cras"])
    with pytest.raises(MissingError, match="between -1 and 2"), mixed.tasks(torch.tensor([3])):
        pass
    two, three = torch.tensor([1, 0]), torch.zeros(2, 8, 1, dtype=torch.long)
    for numbers in (two.float(), two.bool(), two[:0], two[0], three, [["sun"] * 8, ["sun"] * 7]):
        with pytest.raises(UsageError, match=r"whole numbers|unequally many"), mixed.tasks(numbers):
            pass
    with pytest.raises(UsageError, match="no tasks are named"):
        mixed.model(input_ids=ids)
    strange: tuple[Any, ...] = ("cars", None, 5, [])
    for none in strange:
        with pytest.raises(UsageError, match="name a task for each row"), mixed.tasks(none):
            pass
    with pytest.raises(MissingError, match="no task 5"), mixed.tasks([5]):
        pass
    with pytest.raises(UsageError, match="names 3 tasks, and an input"):
        mixed(ids.repeat(5, 1), adapter_names=["cars", "sun", "dtd"])


def test_models_whose_rows_would_be_mistaken_are_refused(tmp_path: Path) -> None:
    def xlnet() -> Made:
        config = tf.XLNetConfig(vocab_size=96, d_model=32, n_layer=1, n_head=4, d_inner=48)
        return tf.XLNetLMHeadModel(config), {}

    with pytest.raises(MismatchError, match="xlnet puts time before the batch"):
        attached(bank_of(xlnet, tmp_path))

    from safetensors.torch import save_file

    layer = nn.LSTM(8, 8)
    for number, name in enumerate(("base", *TASKS)):
        perturb(layer, number)
        save_file(layer.state_dict(), tmp_path / f"{name}.safetensors")
    tasks = [TaskInput(name, str(tmp_path / f"{name}.safetensors")) for name in TASKS]
    pack(str(tmp_path / "base.safetensors"), tasks, tmp_path / "lstm.randes", options())
    with pytest.raises(MismatchError, match="puts time before the batch; build the model with"):
        randes_cli.attach(nn.LSTM(8, 8), tmp_path / "lstm.randes")


def test_time_before_the_batch_is_refused_and_the_model_is_as_it_was(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = nn.TransformerEncoderLayer(32, 4, 48)
    for number, name in enumerate(("base", *TASKS)):
        perturb(model, number)
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    tasks = [TaskInput(name, str(tmp_path / f"{name}.safetensors")) for name in TASKS]
    pack(str(tmp_path / "base.safetensors"), tasks, tmp_path / "bank.randes", options())
    with pytest.raises(MismatchError, match="self_attn: puts time before the batch"):
        randes_cli.attach(model, tmp_path / "bank.randes")
    assert all(type(value) is nn.Parameter for value in model.parameters())
