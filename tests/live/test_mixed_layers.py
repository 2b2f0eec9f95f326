"""Layers of convolutional networks answer for several tasks, too."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn import functional as F  # noqa: N812

import randes_cli
from randes_cli import Bank, PackOptions, TaskInput, pack
from tests.live.many import (
    ASKED,
    TASKS,
    alone,
    assert_near,
    assert_rows_are_their_tasks,
    attached,
    bank_of,
    batch_of,
    options,
    pack_folders,
)
from tests.models import Made, perturb


class ConvNet(nn.Module):
    """The parts of a timm network: windows that overlap or not, in groups, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv_dw = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.conv_pw = nn.Conv2d(16, 32, 1)
        self.conv = nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, 32)
        self.gamma = nn.Parameter(torch.ones(32, 1, 1))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.stem(x)))
        x = self.conv_pw(x + self.conv_dw(x))
        x = (
            x
            + self.norm(F.gelu(self.conv(F.pad(x, (0, 0, 0, 0)))))
            .repeat_interleave(2, 2)
            .repeat_interleave(2, 3)
            * self.gamma
        )
        return torch.as_tensor(self.head(x.mean((2, 3))))


def test_a_convolutional_network_with_batch_norm(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = ConvNet().eval()
    for number, name in enumerate(("base", *TASKS)):
        perturb(model, number)
        with torch.no_grad():
            model.bn1.running_mean += 0.1 * torch.randn(16)  # type: ignore[operator]
            model.bn1.running_var += 0.1 * torch.rand(16)  # type: ignore[operator]
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    tasks = [TaskInput(name, str(tmp_path / f"{name}.safetensors")) for name in TASKS]
    bank = tmp_path / "bank.randes"
    pack(str(tmp_path / "base.safetensors"), tasks, bank, options(groups=2))
    pictures = torch.randn(5, 3, 32, 32)
    found = []
    for hold in ("dense", "codes"):
        mixed = randes_cli.attach(ConvNet().eval(), bank, hold=hold)
        with torch.inference_mode():
            found.append(mixed(pictures, adapter_names=ASKED))
    with Bank.open(bank) as opened:
        for row, task in enumerate(ASKED):
            if task:
                opened.load_into(model, task)
                wanted = model(pictures[row : row + 1])[0].detach()
                for answers in found:
                    assert_near(answers[row], wanted)


def bank_of_states(model: nn.Module, folder: Path, given: PackOptions) -> Path:
    """A bank of a module of torch's own and three fine-tunes of it."""
    from safetensors.torch import save_file

    for number, name in enumerate(("base", *TASKS)):
        perturb(model, number)
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    tasks = [TaskInput(name, str(folder / f"{name}.safetensors")) for name in TASKS]
    pack(str(folder / "base.safetensors"), tasks, folder / "bank.randes", given)
    return folder / "bank.randes"


def assert_module_answers(model: nn.Module, bank: Path, *inputs: torch.Tensor, **more: Any) -> None:
    """Rows of an attached module are those of the module with each task's values."""
    mixed = randes_cli.attach(deepcopy(model), bank)
    with torch.no_grad():
        found = mixed(*inputs, adapter_names=ASKED, **more)
    with Bank.open(bank) as opened:
        for row, task in enumerate(ASKED):
            if task is None:
                continue
            opened.load_into(model, task)
            with torch.no_grad():
                assert_near(found[row], model(*inputs, **more)[row])


class Transformer(nn.Module):
    """torch's own layers, as torchvision's and open_clip's networks have them."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.cross = nn.MultiheadAttention(32, 2, batch_first=True)
        self.sized = nn.MultiheadAttention(32, 4, kdim=24, vdim=16, batch_first=True)
        self.query = nn.Parameter(torch.randn(1, 3, 32))

    def forward(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, padding: torch.Tensor
    ) -> torch.Tensor:
        length = x.shape[1]
        causal = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.encoder(
            x, mask=causal, src_key_padding_mask=torch.zeros_like(padding, dtype=x.dtype)
        )
        query = self.query.expand(len(x), -1, -1)
        found, weights = self.cross(query, x, x, key_padding_mask=padding)
        sized, _ = self.sized(found, keys, values, need_weights=False)
        each = causal.expand(2 * len(x), -1, -1)[:, :3]
        more, heads = self.cross(query, x, x, attn_mask=each, average_attn_weights=False)
        return torch.cat([t.flatten(1) for t in (found, weights, sized, more, heads)], 1)


@pytest.mark.parametrize("transform", ["two-sided", "hankel"])
@pytest.mark.filterwarnings("ignore:.*are answered task by task")
def test_attention_of_torchs_own(tmp_path: Path, transform: str) -> None:
    torch.manual_seed(0)
    model = Transformer().eval()
    bank = bank_of_states(model, tmp_path, options(transform, groups=2))
    x, keys, values = torch.randn(5, 6, 32), torch.randn(5, 7, 24), torch.randn(5, 7, 16)
    padding = torch.arange(6) >= torch.tensor([6, 5, 6, 4, 3])[:, None]
    assert_module_answers(model, bank, x, keys, values, padding)


def switch() -> Made:
    config = tf.SwitchTransformersConfig(
        vocab_size=96,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_heads=4,
        num_experts=3,
        num_layers=2,
        num_decoder_layers=2,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        expert_capacity=64,
        router_jitter_noise=0,
    )
    ids = torch.arange(1, 9).reshape(1, 8)
    model = tf.SwitchTransformersForConditionalGeneration(config)
    return model, {"input_ids": ids, "decoder_input_ids": ids[:, :4]}


class Experts(nn.Module):
    """A router over experts that are modules, as remote code has them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(32, 3)
        self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        flat = x.reshape(-1, x.shape[-1])
        scores = self.gate(flat)
        chosen, made = scores.argmax(-1), torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            mine = chosen == number
            made[mine] = expert(flat[mine])
        return made.reshape(x.shape), scores


class WithExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.mixture, self.last = nn.Linear(16, 32), Experts(), nn.Linear(35, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made, scores = self.mixture(self.first(x))
        both = torch.cat([made, scores.reshape(*x.shape[:2], -1)], -1)
        return torch.as_tensor(self.last(both))


def test_experts_that_are_modules_run_task_by_task(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = WithExperts().eval()
    bank = bank_of_states(model, tmp_path, options(groups=2))
    assert_module_answers(model, bank, torch.randn(5, 7, 16))
    mixed = randes_cli.attach(model, bank)
    x, tokens = torch.randn(5, 7, 16), torch.zeros(5, 7, dtype=torch.long)
    tokens[:, 3:] = 1
    tokens[2, ::2], tokens[4] = -1, 2
    with torch.inference_mode():
        found = mixed(x, adapter_names=tokens)
        for number, task in enumerate((*mixed.names, None)):
            mine = tokens == (-1 if task is None else number)
            assert_near(found[mine], mixed(x, adapter_names=[task])[mine])


def test_a_switch_transformer(tmp_path: Path) -> None:
    bank = bank_of(switch, tmp_path)
    assert_rows_are_their_tasks(attached(bank), alone(bank), batch_of(switch()[1]))


def test_a_diffusers_unet(tmp_path: Path) -> None:
    from tests.models import unet

    torch.manual_seed(0)
    model = unet()
    model.save_pretrained(tmp_path / "base")
    for number, task in enumerate(TASKS):
        perturb(model, number)
        model.save_pretrained(tmp_path / task)
    bank = pack_folders(tmp_path, options(groups=2))
    source = torch.Generator().manual_seed(1)
    picture = torch.randn(5, 4, 8, 8, generator=source)
    words = torch.randn(5, 3, 8, generator=source)
    alone = [randes_cli.diffusers.from_bank(bank, asked) for asked in ASKED]
    for hold in ("dense", "codes"):
        mixed = randes_cli.attach(randes_cli.diffusers.from_bank(bank), bank, hold=hold)
        with torch.inference_mode():
            found = mixed(picture, 3, words, adapter_names=ASKED).sample
            for row, one in enumerate(alone):
                wanted = one(picture[row : row + 1], 3, words[row : row + 1]).sample
                assert_near(found[row], wanted[0])
