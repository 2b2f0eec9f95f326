"""The same files here and in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from randes_cli import (
    TaskInput,
)
from tests.checkpoints import perturbed, random_state, save
from tests.store_server import Store

SHAPES = {"a.weight": [200, 128], "b.weight": [300, 128], "norm": [128]}
TASKS = ("cars", "dtd", "svhn")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a base and three fine-tunes, which is the working folder, too."""
    base = random_state(SHAPES)
    save(base, tmp_path / "base.safetensors")
    for seed, name in enumerate(TASKS):
        task = perturbed(base, seed=seed)
        if name == "dtd":
            task["head"] = torch.ones(7, 128)
        save(task, tmp_path / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def far(store: Store, here: Path) -> Store:
    """The same in a bucket."""
    store.put_folder(here)
    store.forget()
    return store


def inputs(at: str, *names: str) -> list[TaskInput]:
    return [TaskInput(name, f"{at}{name}.safetensors") for name in names]
