"""A small family of checkpoints and a way to run the command line inside the test process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from randes_cli.cli.main import run


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def randes(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*words: object) -> Result:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A folder with base.safetensors and three fine-tunes: a, b (another head), c (bfloat16)."""
    random = torch.Generator().manual_seed(0)
    base = {f"h.{i}.w.weight": torch.randn(64, 48, generator=random) for i in range(4)}
    base["wte.weight"] = torch.randn(100, 48, generator=random)
    base["norm.bias"] = torch.randn(48, generator=random)
    base["ids"] = torch.arange(7)
    save_file(base, tmp_path / "base.safetensors", metadata={"format": "pt"})
    for name in "abc":
        task = {
            key: value + 0.02 * torch.randn(value.shape, generator=random)
            if value.is_floating_point()
            else value.clone()
            for key, value in base.items()
        }
        if name == "b":
            task["head.weight"] = torch.randn(3, 48, generator=random)
        if name == "c":
            task = {k: v.bfloat16() if v.is_floating_point() else v for k, v in task.items()}
        save_file(task, tmp_path / f"{name}.safetensors", metadata={"format": "pt"})
    return tmp_path


@pytest.fixture
def bank(family: Path, randes: Callable[..., Result]) -> Path:
    """A bank of a and b."""
    path = family / "bank.randes"
    words = ["pack", family / "base.safetensors", family / "a.safetensors"]
    assert randes(*words, f"b={family / 'b.safetensors'}", "-o", path, "-q").code == 0
    return path
