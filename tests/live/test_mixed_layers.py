"""Layers of convolutional networks answer for several tasks, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import randes_cli
from randes_cli import Bank, TaskInput, pack
from tests.live.many import (
    ASKED,
    TASKS,
    assert_near,
    options,
    pack_folders,
)
from tests.test_architectures import perturb


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


@pytest.mark.parametrize("hold", ["dense", "codes"])
def test_a_convolutional_network_with_batch_norm(tmp_path: Path, hold: str) -> None:
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
    mixed = randes_cli.attach(ConvNet().eval(), bank, hold=hold)
    pictures = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        found = mixed(pictures, adapter_names=ASKED)
    with Bank.open(bank) as opened:
        for row, task in enumerate(ASKED):
            if task:
                opened.load_into(model, task)
                assert_near(found[row], model(pictures[row : row + 1])[0].detach())


@pytest.mark.parametrize("hold", ["dense", "codes"])
def test_a_diffusers_unet(tmp_path: Path, hold: str) -> None:
    from tests.live.test_from_bank import unet

    torch.manual_seed(0)
    model = unet()
    model.save_pretrained(tmp_path / "base")
    for number, task in enumerate(TASKS):
        perturb(model, number)
        model.save_pretrained(tmp_path / task)
    bank = pack_folders(tmp_path, options(groups=2))
    mixed = randes_cli.attach(randes_cli.diffusers.from_bank(bank), bank, hold=hold)
    source = torch.Generator().manual_seed(1)
    picture = torch.randn(5, 4, 8, 8, generator=source)
    words = torch.randn(5, 3, 8, generator=source)
    with torch.inference_mode():
        found = mixed(picture, 3, words, adapter_names=ASKED).sample
        for row, asked in enumerate(ASKED):
            one = randes_cli.diffusers.from_bank(bank, asked)
            wanted = one(picture[row : row + 1], 3, words[row : row + 1]).sample
            assert_near(found[row], wanted[0])
