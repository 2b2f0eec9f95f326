"""Tensors that lie in several parameters, and weights that are cast before they are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from torch.nn import functional as F  # noqa: N812

import randes_cli
from randes_cli import Bank, Pool
from randes_cli.errors import MismatchError
from randes_cli.live.matching.following import follow
from tests.live.many import (
    ASKED,
    TASKS,
    alone,
    assert_rows_are_their_tasks,
    attached,
    bank_of,
    batch_of,
    options,
)
from tests.live.test_from_bank import assert_same
from tests.live.test_mixed_layers import bank_of_states
from tests.models import GROUPED, IDS, SMALL, Made


def gte() -> Made:
    """One tensor of queries, keys and values, and one of both inner matrices."""
    return tf.GteForMaskedLM(tf.GteConfig(**SMALL)), {"input_ids": IDS}


def hrm() -> Made:
    config = tf.HrmTextConfig(**GROUPED, max_position_embeddings=64)
    return tf.HrmTextForCausalLM(config), {"input_ids": IDS}


def olmo_hybrid() -> Made:
    """Kernels of different lengths that become one."""
    config = tf.OlmoHybridConfig(
        **GROUPED,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=16,
        layer_types=["linear_attention", "full_attention"],
        pad_token_id=0,
    )
    return tf.OlmoHybridForCausalLM(config), {"input_ids": IDS}


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
@pytest.mark.parametrize(
    ("make", "transform", "bits"),
    [
        (gte, "two-sided", 16),
        (gte, "two-sided", 3),
        (gte, "hankel", 2),
        (gte, "srsf", 8),
        (hrm, "two-sided", 2),
        (olmo_hybrid, "two-sided", 16),
    ],
)
def test_tensors_that_are_dealt_out_or_put_together(
    make: Callable[[], Made], transform: str, bits: int, tmp_path: Path
) -> None:
    bank = bank_of(make, tmp_path, options(transform, bits=bits, groups=2))
    models, batch = alone(bank), batch_of(make()[1])
    for hold in ("dense", "codes"):
        assert_rows_are_their_tasks(attached(bank, hold=hold), models, batch)
    model = randes_cli.transformers.from_bank(bank)
    for resident in (True, False):
        with Pool(bank, model, resident=resident) as pool:
            for task in TASKS:
                with pool.use(task), torch.no_grad():
                    assert_same(model, models[task])


class Casts(torch.nn.Module):
    """A router in float32, whatever the model's dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (torch.nn.Parameter(torch.randn(6, 64)) for _ in range(2))
        self.third, self.bias = torch.nn.Linear(6, 6), torch.nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = F.linear(x.float(), self.first.type(torch.float32), self.bias.float())
        flat = x.reshape(-1, x.shape[-1]).type(torch.float32)
        second = F.linear(flat, self.second.float()).reshape(first.shape)
        more = self.third((first + second).type_as(self.third.weight.to(x.dtype)))
        more = more.float() + self.bias.unsqueeze(0).float().expand_as(first)
        halves = torch.split(self.bias.reshape(1, 6).squeeze(), 3)
        return torch.as_tensor(more + torch.cat(halves[::-1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("tokens", [False, True], ids=["rows", "tokens"])
def test_weights_that_are_cast_are_each_rows_own(
    tokens: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Casts()
    bank = bank_of_states(model, tmp_path, options(groups=2))
    mixed = randes_cli.attach(Casts().to(dtype), bank)
    x = torch.randn(5, 7, 64).to(dtype)
    names = [[*ASKED[:2], None, *ASKED[1:]][:7] if tokens else [task] * 7 for task in ASKED]
    with torch.no_grad():
        found = mixed(x, adapter_names=names if tokens else ASKED)
    one = Casts().to(dtype)
    with Bank.open(bank) as opened, torch.no_grad():
        for row, own in enumerate(names):
            for token, asked in enumerate(own):
                if asked is None:
                    continue
                opened.load_into(one, asked)
                wanted = one(x[row : row + 1])[0, token]
                near = 1e-4 if dtype == torch.float32 else 0.03
                assert (found[row, token] - wanted).abs().max() <= near * wanted.abs().max()


@pytest.mark.parametrize(("dim", "known"), [(0, True), (1, False), (2, False)])
def test_rows_inside_experts_that_are_dealt_in_turns_are_not_taken_for_as_they_were(
    dim: int, known: bool
) -> None:
    from transformers.core_model_loading import Interleave, WeightConverter

    step = WeightConverter("given", "made", operations=[Interleave(dim=dim)])
    more: tuple[Any, ...] = (step, [("given", "given")], {"given": (4, 8, 6)})
    if not known:
        with pytest.raises(MismatchError, match="made: its library makes it of what it loads"):
            follow(SimpleNamespace(config=None), "made", *more)
        return
    (part,) = follow(SimpleNamespace(config=None), "made", *more)["made"]
    assert part.rows == (0, 2, 1, 3)
