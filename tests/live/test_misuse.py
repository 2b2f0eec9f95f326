"""What else people do with a model that has tasks attached, or is in a pool: right, or refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import randes_cli
from randes_cli import MixedModel, Pool
from randes_cli.errors import MismatchError, RandesError, UsageError
from tests.live.many import alone, attached, bank_of
from tests.live.test_from_bank import assert_same
from tests.models import llama


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bank_of(llama, tmp_path_factory.mktemp("bank"))


def ids(rows: int = 1) -> torch.Tensor:
    return llama()[1]["input_ids"][:1].repeat(rows, 1)


@pytest.mark.parametrize(
    ("do", "error", "said"),
    [
        (lambda m: m.model.to(torch.bfloat16), UsageError, "cannot change dtype or device"),
        (lambda m: m.model.half(), UsageError, "cannot change dtype or device"),
        (lambda m: m.model.double(), UsageError, "cannot change dtype or device"),
        (lambda m: m.model.to("meta"), UsageError, "cannot change dtype or device"),
        (
            lambda m: in_a_block(m, lambda x: x.model.half(), "sun", None),
            UsageError,
            "cannot change",
        ),
        (lambda m: in_a_block(m, lambda x: x.model.to("meta"), "sun"), UsageError, "cannot change"),
        (lambda m: m.model.to_empty(device="cpu"), UsageError, "no tasks are named"),
        (lambda m: copy.deepcopy(m.model), UsageError, "is not copied; detach"),
        (lambda m: pickle.dumps(m.model), UsageError, "is not saved; detach"),
        (pickle.dumps, UsageError, "neither copied nor saved"),
        (copy.deepcopy, UsageError, "neither copied nor saved"),
        (lambda m: randes_cli.attach(m.model, m.path), UsageError, "has tasks attached"),
        (lambda m: Pool(m.path, m.model), UsageError, "has tasks attached"),
        (lambda m: m.model.resize_token_embeddings(120), RandesError, "cannot be written to while"),
        (lambda m: m.model.lm_head.weight.copy_(1), UsageError, "cannot be written to"),
        (lambda m: m.model._replicate_for_data_parallel(), UsageError, "is not replicated"),
        (lambda m: m.model.requires_grad_(), UsageError, "is not trained while tasks are"),
        (lambda m: setattr(m.model.lm_head.weight, "requires_grad", True), UsageError, "not trai"),
        (lambda m: in_a_block(m, torch.nn.Module.state_dict, "sun"), UsageError, "not saved"),
        (lambda m: in_a_block(m, lambda x: x.model.state_dict(), "sun", None), UsageError, "not s"),
        (lambda m: in_a_block(m, lambda x: x.save_pretrained(m.folder), None), UsageError, "not s"),
    ],
)
def test_what_would_lose_the_tasks_is_refused_and_changes_nothing(
    bank: Path, tmp_path: Path, do: Callable[[Any], Any], error: type[Exception], said: str
) -> None:
    mixed: Any = attached(bank)
    mixed.path, mixed.folder = bank, tmp_path
    with pytest.raises(error, match=said):
        do(mixed)
    assert_answers(mixed, bank)


def in_a_block(mixed: Any, do: Callable[[Any], Any], *names: str | None) -> Any:
    with mixed.tasks(names) as model:
        return do(model)


_ROWS = ("sun", None, "cars")


@cache
def answers(bank: Path) -> torch.Tensor:
    """What each row's own model says."""
    models = alone(bank, _ROWS)
    with torch.no_grad():
        return torch.cat([models[task](input_ids=ids()).logits for task in _ROWS])


def assert_answers(mixed: MixedModel, bank: Path) -> None:
    with torch.no_grad(), mixed.tasks(_ROWS) as model:
        found = model(input_ids=ids(3)).logits
    assert (found - answers(bank)).abs().max() < 1e-5


@pytest.mark.parametrize("part", ["", "model.layers.1"])
@pytest.mark.parametrize("change", ["half", "double", "bfloat16"])
def test_a_refused_cast_leaves_no_parameter_cast(bank: Path, change: str, part: str) -> None:
    mixed: Any = attached(bank)
    for module in [mixed.model.model, *mixed.model.model.layers]:
        module._modules = {"first": torch.nn.Linear(1, 1), **module._modules}
    layer = mixed.model.get_submodule(part)
    with pytest.raises(UsageError, match="cannot change dtype or device"):
        getattr(layer, change)()
    kinds = {v.dtype for v in (*mixed.model.parameters(), *mixed.model.buffers())}
    assert kinds == {torch.float32}
    assert_answers(mixed, bank)
    mixed.detach().half()
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float16}


def test_an_attached_model_is_saved_as_the_base_that_it_was(bank: Path, tmp_path: Path) -> None:
    mixed: Any = attached(bank)
    mixed.model.save_pretrained(tmp_path)
    torch.save(mixed.model.state_dict(), tmp_path / "state.pt")
    base = randes_cli.transformers.from_bank(bank).state_dict()
    for found in (load_file(tmp_path / "model.safetensors"), torch.load(tmp_path / "state.pt")):
        assert found.keys() == base.keys()
        assert all(torch.equal(found[name], base[name]) for name in base)


def test_a_pipeline_takes_what_attach_returns(bank: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, pipeline

    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(96)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
    tokenizer.padding_side = "left"
    asked, texts = ["cars", None, "sun"], ["w5 w6 w7", "w9", "w8 w3"]
    given: Any = {"max_new_tokens": 5, "batch_size": 3, "do_sample": False}
    mixed = attached(bank)
    run: Any = pipeline("text-generation", model=mixed, tokenizer=tokenizer)
    with mixed.tasks(asked):
        found = run(texts, **given)
    assert found == run(texts, adapter_names=asked, **given)
    unpacked = alone(bank, asked)
    for row, task in enumerate(asked):
        model = unpacked[task]
        one: Any = pipeline("text-generation", model=model, tokenizer=tokenizer)
        assert one(texts, **given)[row] == found[row]
    with pytest.raises(UsageError, match="no tasks are named"):
        run(texts, **given)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = mixed.other


@pytest.mark.parametrize("way", ["load_state_dict", "assign", "exchange"])
def test_parameters_that_were_replaced_are_missed(bank: Path, way: str) -> None:
    mixed: Any = attached(bank)
    state = alone(bank, ["sun"])["sun"].state_dict()
    if way == "assign":
        mixed.model.lm_head.weight = torch.nn.Parameter(state["lm_head.weight"])
    elif way == "exchange":
        up, gate = (getattr(mixed.model.model.layers[0].mlp, f"{n}_proj") for n in ("up", "gate"))
        up.weight, gate.weight = gate.weight, up.weight
    else:
        mixed.model.load_state_dict(state, assign=True)
    with pytest.raises(UsageError, match="was replaced after attach"), mixed.tasks(["cars"]):
        pass
    assert_same(mixed.detach(), randes_cli.transformers.from_bank(bank))


def test_a_model_that_was_detached_names_no_tasks(bank: Path) -> None:
    mixed = attached(bank)
    assert_same(mixed.detach(), randes_cli.transformers.from_bank(bank))
    mixed.detach()
    with pytest.raises(UsageError, match="were detached"), mixed.tasks(["cars"]):
        pass


def adapted(model: Any, kind: str = "lora") -> Any:
    from peft import LoraConfig, ShiraConfig, get_peft_model

    torch.manual_seed(1)
    config: Any = LoraConfig(target_modules=["q_proj", "embed_tokens"])
    if kind == "shira":  # which adds a sparse tensor
        config = ShiraConfig(r=4, target_modules=["q_proj"])
    made: Any = get_peft_model(model, config)
    for name, parameter in made.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name or "shira_weight" in name:
            torch.nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize("order", ["tasks first", "adapter first", "shira"])
def test_an_adapter_is_added_to_every_rows_task(bank: Path, order: str) -> None:
    if order == "tasks first":
        mixed = attached(bank)
        top = adapted(mixed.model)
    else:
        top = adapted(randes_cli.transformers.from_bank(bank), order)
        mixed = randes_cli.attach(top, bank)
    with torch.no_grad(), mixed.tasks(["sun", "cars"]):
        found = top(input_ids=ids(2)).logits
    for row, task in enumerate(("sun", "cars")):
        wanted = adapted(alone(bank, [task])[task], order)(input_ids=ids()).logits[0]
        assert (found[row] - wanted).abs().max() < 1e-4


def test_a_pool_swaps_under_an_adapter(bank: Path) -> None:
    top = adapted(randes_cli.transformers.from_bank(bank))
    with Pool(bank, top) as pool:
        for task in ("sun", "cars"):
            wanted = adapted(alone(bank, [task])[task])
            with pool.use(task) as model:
                assert_same(model, wanted)


@pytest.mark.parametrize("where", ["attach", "pool"])
def test_weights_with_an_adapter_merged_into_them_are_not_overwritten(
    bank: Path, where: str
) -> None:
    top = adapted(randes_cli.transformers.from_bank(bank))
    top.merge_adapter()
    before = {name: value.clone() for name, value in top.state_dict().items()}
    with pytest.raises(UsageError, match="an adapter is merged into its weights; unmerge"):
        randes_cli.attach(top, bank) if where == "attach" else Pool(bank, top)
    assert all(torch.equal(before[name], value) for name, value in top.state_dict().items())


@pytest.mark.parametrize("way", ["assign", "replace", "write", "cast"])
def test_a_pool_writes_to_the_parameters_that_the_model_has_now(bank: Path, way: str) -> None:
    model: Any = randes_cli.transformers.from_bank(bank)
    with Pool(bank, model) as pool:
        with pool.use("cars"):
            pass
        if way == "assign":
            state = {n: t.clone() for n, t in model.state_dict().items()}
            model.load_state_dict(state, assign=True)
        elif way == "replace":
            model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        elif way == "write":
            with torch.no_grad():
                model.lm_head.weight.zero_()
        else:
            model.to(torch.bfloat16)
        for task in ("cars", "sun"):
            with pool.use(task):
                wanted: Any = randes_cli.transformers.from_bank(bank, task, dtype=model.dtype)
                for name, found in model.named_parameters():
                    assert torch.equal(found, wanted.get_parameter(name))


def test_a_pool_that_is_closed_or_copied_says_so(bank: Path) -> None:
    model = randes_cli.transformers.from_bank(bank)
    pool = Pool(bank, model)
    with pytest.raises(UsageError, match="neither copied nor saved: close the pool"):
        copy.deepcopy(model)
    pool.close()
    copy.deepcopy(model)
    with pytest.raises(UsageError, match="the pool is closed"), pool.use("cars"):
        pass
    with randes_cli.Bank.open(bank) as opened:
        Pool(opened, model).close()
        randes_cli.transformers.from_bank(opened, "cars")  # the bank is whose it was


def _integers(model: Any) -> None:
    weight = model.model.layers[0].mlp.up_proj.weight
    whole = torch.zeros_like(weight, dtype=torch.int8)
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(whole, requires_grad=False)


def _packed(model: Any) -> None:
    layer = model.model.layers[1].self_attn.q_proj
    layer.packed = layer.weight.data
    del layer.weight


def _away(model: Any) -> None:
    model.lm_head.to("meta")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_integers, r"up_proj.weight is torch.float32 in the bank and torch.int8 in the model"),
        (_packed, r"q_proj.weight: the model's Linear has no such parameter"),
        (_away, r"lm_head.weight of the model is on the meta device"),
    ],
)
def test_models_that_keep_their_weights_otherwise_are_refused(
    bank: Path, change: Callable[[Any], None], said: str
) -> None:
    model = randes_cli.transformers.from_bank(bank)
    change(model)
    before = {n: p.clone() for n, p in model.named_parameters() if not p.is_meta}
    with pytest.raises(MismatchError, match=said):
        randes_cli.attach(model, bank)
    with Pool(bank, model) as pool, pytest.raises(MismatchError, match=said), pool.use("sun"):
        pass
    assert all(torch.equal(dict(model.named_parameters())[n], p) for n, p in before.items())
