"""What happens to a model after `attach`: layers replaced, casts, interrupts, other ways to ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import randes_cli
from randes_cli import Bank, Pool, TaskInput, pack
from randes_cli.errors import MismatchError, UsageError
from tests.live.many import ASKED, alone, assert_near, attached, bank_of, options
from tests.live.test_from_bank import assert_same
from tests.live.test_mixed_layers import assert_module_answers, bank_of_states
from tests.models import clip, llama

IDS = torch.randint(3, 90, (5, 10), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bank_of(llama, tmp_path_factory.mktemp("bank"), options(groups=2))


def assert_answers(mixed: Any, bank: Path, ids: torch.Tensor = IDS, **more: Any) -> None:
    models = alone(bank)
    with torch.no_grad():
        found = mixed(input_ids=ids, adapter_names=ASKED, **more).logits
        for row, task in enumerate(ASKED):
            assert_near(found[row], models[task](input_ids=ids[row : row + 1], **more).logits[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.to("cpu"),
        lambda model: model.float(),
        lambda model: model.to(torch.float32),
        lambda model: model.model.layers[0].float(),
    ],
    ids=["device", "float", "dtype", "layer"],
)
def test_a_cast_to_what_a_model_is_changes_nothing(
    bank: Path, change: Callable[[Any], Any]
) -> None:
    mixed = attached(bank)
    mixed.model.register_buffer("beside", torch.zeros(1))
    names = list(mixed.model.state_dict())
    change(mixed.model)
    assert list(mixed.model.state_dict()) == names
    assert_answers(mixed, bank)


def test_layers_that_were_replaced_are_missed(bank: Path) -> None:
    mixed: Any = attached(bank)
    before = mixed.model.lm_head
    mixed.model.set_output_embeddings(nn.Linear(32, 96, bias=False))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"lm_head.weight: was replaced after attach"):
            mixed(IDS, adapter_names=ASKED)
    mixed.model.lm_head = nn.Identity()  # for who wants what comes before the head
    mixed(IDS, adapter_names=ASKED)
    mixed.model.lm_head = before
    assert_answers(mixed, bank)


def test_a_pool_fills_the_layers_that_a_model_has_now(bank: Path) -> None:
    model: Any = randes_cli.transformers.from_bank(bank)
    with Pool(bank, model) as pool:
        for task in ("cars", "cars", "sun"):
            with pool.use(task):
                assert_same(model, alone(bank, [task])[task])
            model.lm_head = nn.Linear(32, 96, bias=False)


def test_places_of_tokens_are_no_rows(bank: Path) -> None:
    places = torch.tensor([0, 2, 3, 5, 9])  # as many as rows
    assert_answers(attached(bank), bank, logits_to_keep=places)


def test_a_batch_after_one_that_was_interrupted(bank: Path) -> None:
    mixed: Any = attached(bank)
    assert_answers(mixed, bank)
    calls: list[int] = []

    def press(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    hook = mixed.model.model.norm.register_forward_hook(press)
    with pytest.raises(KeyboardInterrupt):  # in the batch itself, after its rows were turned
        mixed(input_ids=IDS, attention_mask=torch.ones_like(IDS), adapter_names=ASKED)
    hook.remove()
    assert_answers(mixed, bank, IDS.flip(0))


def test_features_are_asked_for_by_rows_too(tmp_path: Path) -> None:
    bank = bank_of(clip, tmp_path)
    models, mixed = alone(bank), attached(bank)
    asked = {"get_text_features": IDS, "get_image_features": torch.randn(5, 3, 32, 32)}
    for name, given in asked.items():
        with torch.no_grad(), mixed.tasks(ASKED) as model:
            found = getattr(model, name)(given).pooler_output
            for row, task in enumerate(ASKED):
                assert_near(found[row], getattr(models[task], name)(given[[row]]).pooler_output[0])
            for other in (given.repeat(2, *[1] * (given.dim() - 1)), given[:1]):
                with pytest.raises(UsageError, match="tasks are named for 5: name one for each"):
                    getattr(model, name)(other)
    names = set(vars(mixed.model))
    mixed.detach()
    assert names - set(vars(mixed.model)) >= set(asked)


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.inner(x.transpose(0, 1)).transpose(0, 1))


def test_tokens_with_tasks_that_are_as_many_as_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bank = bank_of_states(TimeFirst(), tmp_path, options(groups=2))
    tokens = torch.arange(25).reshape(5, 5) % 3
    with pytest.raises(MismatchError, match="do not come by rows"):
        randes_cli.attach(TimeFirst(), bank)(torch.randn(5, 5, 16), adapter_names=tokens)


class Vector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.vector


@pytest.mark.parametrize("shape", [(5, 16), (5, 1, 16), (5, 4, 3, 16)])
def test_products_with_a_vector(tmp_path: Path, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    bank = bank_of_states(Vector(), tmp_path, options(groups=2))
    x = torch.randn(shape)
    if len(shape) > 2:
        assert_module_answers(Vector(), bank, x)
    mixed = randes_cli.attach(Vector(), bank)
    found = mixed(x, adapter_names=ASKED)
    assert found.shape == x.shape[:-1]
    assert_near(found[1:2].detach(), mixed(x[1:2], adapter_names=ASKED[1:2]).detach())


class Pictures(nn.Module):
    """One picture after another, without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(5, 24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.inner(one.mT) for one in x])


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
def test_a_convolution_without_a_batch_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bank = bank_of_states(Pictures(), tmp_path, options())
    mixed, x = randes_cli.attach(Pictures(), bank), torch.randn(5, 5, 8, 26)  # 24 wide, then
    with pytest.raises(MismatchError, match=r"a convolution is given \[5, 26, 8\]"):
        mixed(x, adapter_names=ASKED)
    with Bank.open(bank) as opened:
        opened.load_into(plain := Pictures(), "sun")
    assert_near(mixed(x, adapter_names=["sun"]).detach(), plain(x).detach())


def test_embeddings_that_are_shortened_are_refused(tmp_path: Path) -> None:
    kept = nn.Sequential(nn.Embedding(30, 16, max_norm=1.0))
    mixed = randes_cli.attach(kept, bank_of_states(kept, tmp_path, options()))
    for asked in (ASKED, ["sun"]):
        with pytest.raises(MismatchError, match=r"0.weight: max_norm shortens rows"):
            mixed(IDS % 30, adapter_names=asked)


def test_a_model_of_buffers_alone(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(16, affine=False).eval()
    for name, scale in (("base", 1.0), ("cars", 2.0), ("sun", 3.0)):
        assert isinstance(model.running_var, torch.Tensor)
        model.running_var.fill_(scale**2)
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    tasks = [TaskInput(name, str(tmp_path / f"{name}.safetensors")) for name in ("cars", "sun")]
    pack(str(tmp_path / "base.safetensors"), tasks, tmp_path / "bank.randes", options())
    mixed = randes_cli.attach(model, tmp_path / "bank.randes")
    found = mixed(torch.ones(3, 16), adapter_names=["sun", None, "cars"])
    assert_near(found[:, 0], torch.tensor([1 / 3, 1.0, 0.5]))
