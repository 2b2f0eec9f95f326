"""Adapters of torch's own modules, compared with what PEFT's model answers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from randes_cli import TaskInput, pack
from randes_cli.read.unpack import unpack
from tests.build.test_adapters_against_peft import trained


class Attention(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(32, 4, bias=bias, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.attn(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("target", ["attn", "attn.out_proj"])
def test_the_last_layer_of_an_attention_changes_as_in_pefts_forward(
    target: str, bias: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    base = Attention(bias).eval()
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    config = LoraConfig(r=4, lora_alpha=6, target_modules=[target])
    trained(get_peft_model(copy.deepcopy(base), config)).save_pretrained(tmp_path / "adapter")
    pack(
        str(tmp_path / "base.safetensors"),
        [TaskInput("a", str(tmp_path / "adapter"))],
        tmp_path / "b.randes",
    )
    unpack(tmp_path / "b.randes", "a", tmp_path / "out")
    ours = copy.deepcopy(base)
    ours.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    live = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapter")
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        wanted = live(x) if target == "attn" else live.merge_and_unload()(x)
        assert (ours(x) - wanted).norm() < 0.05 * (base(x) - wanted).norm()
