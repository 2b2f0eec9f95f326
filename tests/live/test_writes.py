"""Who else writes to a model that answers for many tasks, or hides its rows: refused, unwritten."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import randes_cli
from randes_cli import Bank, Pool
from randes_cli.errors import MismatchError, UsageError
from tests.live.many import ASKED, alone, assert_near, attached, bank_of, options
from tests.live.test_from_bank import assert_same
from tests.live.test_mixed_layers import bank_of_states
from tests.models import llama

IDS = torch.randint(3, 90, (5, 10), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bank_of(llama, tmp_path_factory.mktemp("bank"), options(groups=2))


@cache
@torch.no_grad()
def answers(bank: Path) -> list[torch.Tensor]:
    """What each row's own model says."""
    models = alone(bank)
    return [models[task](input_ids=IDS[[row]]).logits[0] for row, task in enumerate(ASKED)]


@torch.no_grad()
def assert_answers(mixed: Any, bank: Path) -> None:
    found = mixed(input_ids=IDS, adapter_names=ASKED).logits
    for row, wanted in zip(found, answers(bank), strict=True):
        assert_near(row, wanted)


def add(weight: Any) -> None:
    weight += 1


def put(weight: Any) -> None:
    weight[0] = 1


def add_to_values(weight: Any) -> None:
    weight.data += 1


@pytest.mark.parametrize(
    "write",
    [
        *(add, put, add_to_values),
        lambda weight: weight.mul_(2),
        lambda weight: setattr(weight, "data", torch.zeros(96, 32)),
        lambda weight: torch.add(weight, 1, out=weight),
    ],
)
@torch.no_grad()
def test_a_write_is_refused_in_a_block_and_outside(bank: Path, write: Callable[[Any], Any]) -> None:
    mixed: Any = attached(bank)
    weight = mixed.model.lm_head.weight
    for names in (None, ["sun"], ASKED):
        block = nullcontext() if names is None else mixed.tasks(names)
        refused = f"{'' if names else 'lm_head.weight: '}cannot be written to while"
        with block, pytest.raises(UsageError, match=refused):
            write(weight)
        assert_answers(mixed, bank)


def test_values_are_read_and_copied(bank: Path) -> None:
    mixed: Any = attached(bank)
    weight, base = mixed.model.lm_head.weight, alone(bank, [None])[None].lm_head.weight
    for copied in (copy.deepcopy(weight.data), pickle.loads(pickle.dumps(weight.data))):
        assert type(copied) is torch.Tensor and torch.equal(copied, base)
    assert torch.equal(torch.from_numpy(weight.data.numpy()), base)
    assert weight.data.data_ptr() == weight.data_ptr()


def test_what_was_written_past_a_refusal_is_seen_at_the_next_block(bank: Path) -> None:
    mixed: Any = attached(bank)
    writes: list[Any] = [lambda w: w.detach().mul_(2), lambda w: w.data[0].zero_()]
    for write in writes:
        write(mixed.model.lm_head.weight)
        with pytest.raises(UsageError, match=r"lm_head.weight: was written to after attach"):
            mixed(IDS, adapter_names=ASKED)
        mixed = randes_cli.attach(mixed.detach(), bank)
        assert_answers(mixed, bank)


def test_memory_that_processes_were_to_share_is_not_written_to(bank: Path) -> None:
    mixed = attached(bank)
    with pytest.raises(UsageError, match="is not saved; detach"):
        ForkingPickler.dumps(mixed.model)
    assert_answers(mixed, bank)


def test_a_task_is_not_loaded_into_a_model_with_tasks(bank: Path) -> None:
    mixed = attached(bank)
    with Bank.open(bank) as opened, pytest.raises(UsageError, match="cannot be written to while"):
        opened.load_into(mixed.model, "cars")
    assert_answers(mixed, bank)


def test_other_weights_for_one_call_are_refused(bank: Path) -> None:
    mixed = attached(bank)
    own: dict[str, torch.Tensor] = dict(mixed.model.named_parameters())
    with torch.no_grad(), mixed.tasks(ASKED) as model:
        wanted = model(IDS).logits
        assert torch.equal(torch.func.functional_call(model, own, (IDS,)).logits, wanted)
        with pytest.raises(UsageError, match="was replaced after attach"):
            torch.func.functional_call(model, alone(bank, ["cars"])["cars"].state_dict(), (IDS,))
    assert_answers(mixed, bank)


class Fusable(nn.Module):
    """What libraries do to make two products one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 24), nn.Linear(16, 24)

    def fuse(self) -> None:
        self.both = nn.Linear(16, 48)
        for name in ("weight", "bias"):
            parts = [getattr(layer, name).data for layer in (self.one, self.two)]
            getattr(self.both, name).data = torch.cat(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "both"):
            return torch.as_tensor(self.both(x))
        return torch.cat([self.one(x), self.two(x)], -1)


def test_layers_that_were_fused_have_no_tasks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Fusable()
    mixed = randes_cli.attach(model, bank_of_states(model, tmp_path, options()))
    mixed(torch.randn(5, 16), adapter_names=ASKED)
    model.fuse()
    with pytest.raises(UsageError, match=r"both\.\w+: was added after attach, and has no tasks"):
        mixed(torch.randn(5, 16), adapter_names=ASKED)


def test_rows_that_vmap_hides_are_refused(bank: Path) -> None:
    mixed: Any = attached(bank)
    inputs = torch.randn(5, 10, 32)
    for layer in (mixed.model.model.layers[0].mlp.gate_proj, mixed.model.model.norm):
        with mixed.tasks(ASKED), pytest.raises(UsageError, match="vmap hides a dimension"):
            torch.func.vmap(layer)(inputs)
        with mixed.tasks(["sun"]):
            assert_near(torch.func.vmap(layer)(inputs), layer(inputs))


def test_tasks_are_not_detached_inside_a_block(bank: Path) -> None:
    mixed = attached(bank)
    with mixed.tasks(ASKED), pytest.raises(UsageError, match="a block that names tasks is open"):
        mixed.detach()
    assert_answers(mixed, bank)


def test_a_model_in_a_pool_takes_no_other_pool_and_no_tasks(bank: Path) -> None:
    model: Any = randes_cli.transformers.from_bank(bank)
    with Pool(bank, model) as pool:
        for other in (Pool, lambda bank, model: randes_cli.attach(model, bank)):
            with pytest.raises(UsageError, match="the model is in a pool; close that first"):
                other(bank, model)
        with pool.use("sun"):
            assert_same(model, alone(bank, ["sun"])["sun"])
    with Pool(bank, model) as pool, pool.use("cars"):
        assert_same(model, alone(bank, ["cars"])["cars"])
    assert_answers(randes_cli.attach(model, bank), bank)


def lora(model: Any, **more: Any) -> Any:
    peft: Any = pytest.importorskip("peft")
    torch.manual_seed(3)
    given = {"init_lora_weights": False, **more}
    return peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj"], **given))


def test_an_adapter_is_not_merged_into_weights_with_tasks(bank: Path) -> None:
    mixed: Any = attached(bank)
    adapted = lora(mixed.model).eval()
    with torch.no_grad(), mixed.tasks(ASKED):
        before = adapted(IDS).logits
        with pytest.raises(UsageError, match="cannot be written to while"):
            adapted.merge_adapter()
    with pytest.raises(UsageError, match="cannot be written to while"):
        adapted.merge_adapter()
    with torch.no_grad(), mixed.tasks(ASKED):
        assert torch.equal(adapted(IDS).logits, before)


def test_a_pool_does_not_swap_an_adapter_away_that_is_merged(bank: Path) -> None:
    adapted = lora(randes_cli.transformers.from_bank(bank)).eval()
    with Pool(bank, adapted) as pool:
        for task in ("sun", "cars"):
            with pool.use(task):
                pass
        adapted.merge_adapter()
        with (
            pytest.raises(UsageError, match="an adapter is merged into its weights"),
            pool.use("sun"),
        ):
            pass
        adapted.unmerge_adapter()
        with pool.use("sun"):
            own = adapted.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
            assert torch.equal(
                own, alone(bank, ["sun"])["sun"].model.layers[0].self_attn.q_proj.weight
            )


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_took_its_part_out_of_the_weights_is_refused(
    bank: Path, start: str
) -> None:
    adapted = lora(randes_cli.transformers.from_bank(bank), init_lora_weights=start)
    for run in (randes_cli.attach, lambda model, bank: Pool(bank, model)):
        with pytest.raises(UsageError, match="took its part out of the weights"):
            run(adapted, bank)


def test_an_adapter_that_answers_in_place_of_the_weights_is_refused(bank: Path) -> None:
    from peft import FrodConfig, get_peft_model

    for before in (True, False):
        model = randes_cli.transformers.from_bank(bank)
        mixed = None if before else randes_cli.attach(model, bank)
        adapted: Any = get_peft_model(model, FrodConfig(target_modules=["q_proj"]))
        with pytest.raises(UsageError, match="answers with what it made of the weights"):
            mixed(IDS, adapter_names=ASKED) if mixed else Pool(bank, adapted)


def test_trained_tokens_are_the_embeddings_of_a_pool_and_refused_beside_tasks(bank: Path) -> None:
    adapted = lora(randes_cli.transformers.from_bank(bank), trainable_token_indices=[5, 6]).eval()
    wanted = lora(alone(bank, ["sun"])["sun"], trainable_token_indices=[5, 6]).eval()
    wanted.load_state_dict(
        {n: v for n, v in adapted.state_dict().items() if "lora" in n or "delta" in n}, strict=False
    )
    with Pool(bank, adapted) as pool, torch.no_grad(), pool.use("sun"):
        assert torch.equal(adapted(IDS).logits, wanted(IDS).logits)
    mixed = randes_cli.attach(adapted, bank)
    with mixed.tasks(ASKED), pytest.raises(MismatchError, match="index_copy on a parameter that"):
        adapted(IDS)
