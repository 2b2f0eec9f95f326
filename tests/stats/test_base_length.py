"""How long deltas are beside their base, against norms of whole checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import randes_cli
from randes_cli import PackOptions, RunOptions
from randes_cli.specs import BaseStorage

LENGTHS = {"near": 0.05, "far": 0.3, "farther": 0.6}


@pytest.fixture
def family(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A base and tasks whose deltas are about as long as `LENGTHS` says, not alike everywhere."""
    random = np.random.default_rng(0)
    shapes = {f"h.{n}.weight": (40, 30 + n) for n in range(3)} | {"norm.weight": (64,)}
    base = {name: random.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    made = {"base": base}
    for name, length in LENGTHS.items():
        noise = {key: random.normal(size=value.shape) for key, value in base.items()}
        scale = {
            key: length * np.linalg.norm(base[key]) / np.linalg.norm(noise[key]) for key in base
        }
        scale["norm.weight"] *= 3
        scale["h.1.weight"] *= 0.1
        made[name] = {key: (base[key] + scale[key] * noise[key]).astype("f4") for key in base}
    made["near"]["h.2.weight"] = base["h.2.weight"]
    for name, tensors in made.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return made


def pack(folder: Path, **options: Any) -> Any:
    tasks = {name: folder / f"{name}.safetensors" for name in LENGTHS}
    bank = folder / "bank.randes"
    made = randes_cli.pack(
        folder / "base.safetensors", tasks, bank, PackOptions(**options), RunOptions(), force=True
    )
    return made, bank


def test_lengths_are_those_of_the_matrices_that_changed(
    family: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    packed, bank = pack(tmp_path)
    found = randes_cli.inspect(bank).report.tasks
    base = family["base"]
    every = [name for name, value in base.items() if value.ndim == 2]
    for task in found:
        own = family[task.name]
        matrices = [name for name in every if (own[name] != base[name]).any()]
        size = sum(np.square(base[name], dtype="f8").sum() for name in matrices)
        delta = sum(np.square(own[n] - base[n], dtype="f8").sum() for n in matrices)
        assert task.length == pytest.approx(np.sqrt(delta / size), rel=1e-5)
    assert [one.length for one in packed.tasks] == [one.length for one in found]


def test_every_verb_tells_the_same_verdict(tmp_path: Path, family: object) -> None:
    packed, bank = pack(tmp_path)
    told = [(task.name, task.verdict, task.expected) for task in packed.tasks]
    assert {verdict for _, verdict, _ in told} >= {"an unmeasured share"}
    dry = randes_cli.pack(
        tmp_path / "base.safetensors",
        {name: tmp_path / f"{name}.safetensors" for name in LENGTHS},
        bank,
        force=True,
        dry_run=True,
    )
    seen = randes_cli.inspect(bank).report.tasks
    again = tmp_path / "again.safetensors"
    again.write_bytes((tmp_path / "near.safetensors").read_bytes())
    added = randes_cli.add(bank, [again])
    for tasks in (dry.tasks, seen, added.before):
        assert [(task.name, task.verdict, task.expected) for task in tasks] == told
    assert [one.length for one in added.after] == [
        one.length for one in randes_cli.inspect(bank).report.tasks
    ]


def test_of_a_base_outside_the_bank_nothing_is_said(tmp_path: Path, family: object) -> None:
    packed, bank = pack(tmp_path, base_storage=BaseStorage.reference)
    assert {task.length for task in (*packed.tasks, *randes_cli.inspect(bank).report.tasks)} == {
        None
    }


def test_a_base_that_is_damaged_or_zero_is_no_measure(tmp_path: Path, family: object) -> None:
    zeros = {"w": np.zeros((8, 8), "f4")}
    save_file(zeros, tmp_path / "base.safetensors")
    for name in LENGTHS:
        save_file({"w": np.ones((8, 8), "f4")}, tmp_path / f"{name}.safetensors")
    packed, _ = pack(tmp_path)
    assert {task.length for task in packed.tasks} == {None}
