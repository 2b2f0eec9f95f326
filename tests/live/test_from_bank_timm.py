"""timm's models come from a bank as its constructor builds them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import randes_cli
from randes_cli import Bank, TaskInput, pack
from randes_cli.errors import MismatchError
from tests.models import perturb


class Net(nn.Module):
    """What timm builds, in small: a buffer that no checkpoint holds, and batch norm.

    `mask` is made where a parameter lies, as Swin's is; a constructor may scale one (ViTamin's).
    """

    def __init__(self, num_classes: int = 1000, width: int = 8, *, scaled: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)
        self.register_buffer("mean", torch.arange(3.0), persistent=False)
        if scaled:
            self.head.weight.data = self.head.weight.data * torch.ones(num_classes, 1)
        mask = torch.ones(2, device=self.head.weight.device).cumsum(0)
        self.register_buffer("mask", mask, persistent=False)


@pytest.fixture
def fake_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm where it is not installed (it needs torchvision): `create_model` alone."""
    module = ModuleType("timm")
    module.create_model = lambda name, **options: {"net": Net}[name](**options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)
    for name in ("randes_cli.live.opening.timm", "randes_cli.timm"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("fake_timm")
def test_a_timm_model_is_built_from_its_config_or_from_what_is_said(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = Net(num_classes=7)
    for name in ("base", "task"):
        (tmp_path / name).mkdir()
        said_of = {"mean": [0, 0, 0], "input_size": [3, 8, 8]}
        config = {"architecture": "net", "num_classes": 7, "label_names": list("abcdefg")}
        config["pretrained_cfg"] = said_of
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        save_file(model.state_dict(), tmp_path / name / "model.safetensors")
        perturb(model, 1)
    bank = tmp_path / "bank.randes"
    pack(str(tmp_path / "base"), [TaskInput("task", str(tmp_path / "task"))], bank)
    with Bank.open(bank) as opened:
        wanted = opened.retrieve("task")
    said: list[dict[str, Any]] = [{}, {"architecture": "net", "num_classes": 7}, {"scaled": True}]
    for options in said:
        found = randes_cli.timm.from_bank(bank, "task", **options)
        assert not found.training and torch.equal(found.get_buffer("mean"), torch.arange(3.0))
        assert torch.equal(found.get_buffer("mask"), torch.tensor([1.0, 2.0]))
        assert found.pretrained_cfg == {
            **{"mean": [0, 0, 0], "input_size": (3, 8, 8)},
            **{"num_classes": 7, "label_names": list("abcdefg")},
        }
        assert found.state_dict().keys() == wanted.keys()
        for name, tensor in found.state_dict().items():
            assert torch.equal(tensor, wanted[name]), name
    with pytest.raises(MismatchError, match=r"tensor 'head\.bias' is"):
        randes_cli.timm.from_bank(bank, "task", num_classes=8)
