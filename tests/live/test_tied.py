"""A task with a head of its own beside embeddings that the model ties it to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import randes_cli
from randes_cli import Bank, Pool
from randes_cli.errors import MismatchError, UsageError
from tests.live.many import ASKED, alone, assert_near, attached, bank_of, options, pack_folders
from tests.models import qwen3, save


@pytest.fixture(scope="module", params=["two-sided", "hankel"])
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    given = options(request.param, groups=2)
    bank_of(qwen3, folder, given)
    kind: Any = type(qwen3()[0])
    model = kind.from_pretrained(folder / "sun")
    model.config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(torch.randn(96, 32, generator=torch.Generator()) / 8)
    save(model, folder / "sun", torch.float32, sharded=False)
    return pack_folders(folder, given)


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
@pytest.mark.parametrize("hold", ["dense", "codes"])
def test_an_attached_model_answers_with_that_head(bank: Path, hold: str) -> None:
    mixed, models = attached(bank, hold=hold), alone(bank)
    assert not torch.equal(models["sun"].lm_head.weight, models["sun"].model.embed_tokens.weight)
    ids = torch.randint(3, 90, (5, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = mixed(ids, adapter_names=ASKED).logits
        for row, task in enumerate(ASKED):
            assert_near(found[row], models[task](ids[row : row + 1]).logits[0])
    tie: Any = mixed.model.tie_weights
    tie()
    with pytest.raises(UsageError, match=r"lm_head.weight: was replaced after attach"):
        mixed(ids, adapter_names=ASKED)
    model: Any = mixed.detach()
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_what_has_no_room_for_it_refuses_that_task(bank: Path) -> None:
    model: Any = randes_cli.transformers.from_bank(bank)
    wanted = alone(bank, ["cars", "sun"])
    with Pool(bank, model) as pool, Bank.open(bank) as opened:
        for _ in range(2):
            with pytest.raises(MismatchError, match=r"sun has .*lm_head.weight apart, and the"):
                pool.use("sun").__enter__()
            with pool.use("cars"):
                assert torch.equal(model.lm_head.weight, wanted["cars"].lm_head.weight)
        with pytest.raises(MismatchError, match=r"task sun has 'lm_head.weight' apart from what"):
            opened.load_into(model, "sun")
        report = opened.load_into(model, "sun", strict=False)
        assert report.unexpected == ("lm_head.weight",)
        embeddings = wanted["sun"].model.embed_tokens.weight
        assert torch.equal(model.model.embed_tokens.weight, embeddings)
    model = randes_cli.transformers.from_bank(bank, "sun")
    with Pool(bank, model) as pool, pool.use("sun"):
        assert torch.equal(model.lm_head.weight, wanted["sun"].lm_head.weight)
