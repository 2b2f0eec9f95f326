"""A bank's bytes depend on its inputs, options and seeds alone."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from randes_cli import PackOptions, RunOptions, TaskInput, Transform, pack
from randes_cli.files.bank.file import BankFile
from randes_cli.specs import BaseStorage
from tests.checkpoints import (
    PRESET_NAMES,
    Packer,
    State,
    layered_shapes,
    perturbed,
    random_state,
    save_sharded,
    stored_sums,
)

RUNS = {
    "1 thread": RunOptions(threads=1),
    "2 threads": RunOptions(threads=2),
    "7 threads": RunOptions(threads=7),
    "strips of 777 elements": RunOptions(threads=2, strip_elements=777),
    "strips of 9999 elements": RunOptions(threads=1, strip_elements=9999),
    "torch": RunOptions(threads=2, device="cpu-torch"),
    "torch, strips of 4321": RunOptions(threads=1, device="cpu-torch", strip_elements=4321),
}


def mixed_model() -> tuple[State, dict[str, State]]:
    """Layers, a convolution, an embedding that grows and shrinks, own and unchanged tensors, a
    sparse change."""
    base = random_state(layered_shapes(layers=3) | {"conv.weight": [12, 40, 3, 3]})
    base["big"] = torch.zeros(3, 23_000)
    base["ids"] = torch.arange(5)
    tasks = {name: perturbed(base, seed=k) for k, name in enumerate(("a", "b", "c"))}
    for task in tasks.values():
        task["big"] = base["big"].clone()
    tasks["a"]["big"][1, 21_900] = 0.3
    tasks["a"]["head"] = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    tasks["b"]["embed.weight"] = torch.cat([tasks["b"]["embed.weight"], torch.ones(2, 6)])
    tasks["c"]["embed.weight"] = tasks["c"]["embed.weight"][:7]
    tasks["c"]["layers.1.norm.weight"] = base["layers.1.norm.weight"].clone()
    tasks["c"] = {
        name: t.to(torch.bfloat16) if "mlp" in name else t for name, t in tasks["c"].items()
    }
    return base, tasks


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("bits", [16, 8])
def test_threads_strips_and_backends_leave_the_bytes_alone(
    packer: Packer, preset: str, bits: int
) -> None:
    base, tasks = mixed_model()
    options = PackOptions(transform=Transform.from_preset(preset), bits=bits)
    banks = {
        label: packer.pack(base, tasks, options, run=run).read_bytes()
        for label, run in RUNS.items()
    }
    assert [label for label, data in banks.items() if data != banks["1 thread"]] == []


@pytest.mark.parametrize("storage", [BaseStorage.embed, BaseStorage.reference])
def test_the_folder_does_not_show_in_the_bytes(tmp_path: Path, storage: BaseStorage) -> None:
    base, tasks = mixed_model()
    options = PackOptions(base_storage=storage)
    first, second = tmp_path / "one", tmp_path / "deeper" / "two"
    for folder in (first, second):
        folder.mkdir(parents=True)
    made = Packer(first).pack(base, tasks, options)
    other = Packer(second).pack(base, tasks, options)
    assert made.read_bytes() == other.read_bytes()
    shutil.copytree(first, tmp_path / "copied")
    inputs = [TaskInput(name, str(tmp_path / "copied" / f"{name}.safetensors")) for name in tasks]
    out = tmp_path / "copied" / "bank.randes"
    pack(str(tmp_path / "copied" / "base.safetensors"), inputs, out, options, force=True)
    assert out.read_bytes() == made.read_bytes()


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("bits", [16, 8])
def test_tasks_with_their_indices_may_come_in_any_order(
    packer: Packer, preset: str, bits: int
) -> None:
    base, tasks = mixed_model()
    indices = {"a": 0, "b": 5, "c": 2}
    options = PackOptions(transform=Transform.from_preset(preset), bits=bits)
    banks = {
        packer.pack(base, {n: tasks[n] for n in order}, options, indices=indices).read_bytes()
        for order in itertools.permutations(tasks)
    }
    assert len(banks) == 1


def test_without_indices_the_order_gives_the_seeds(packer: Packer) -> None:
    base, tasks = mixed_model()
    packer.pack(base, tasks)
    assert [(task.name, task.index, task.seed) for task in packer.reports[-1].tasks] == [
        ("a", 0, 42),
        ("b", 1, 43),
        ("c", 2, 44),
    ]


def test_free_indices_fill_around_those_that_are_given(packer: Packer) -> None:
    base, tasks = mixed_model()
    packer.pack(base, tasks, indices={"a": 1})
    assert [(task.name, task.index) for task in packer.reports[-1].tasks] == [
        ("b", 0),
        ("a", 1),
        ("c", 2),
    ]


def test_the_seed_changes_the_sums_and_nothing_of_the_base(packer: Packer) -> None:
    base, tasks = mixed_model()
    found = []
    for seed in (42, 43):
        bank = packer.pack(base, tasks, PackOptions(seed=seed))
        found.append(stored_sums(bank))
    differ = {name for name, value in found[0].items() if not torch.equal(value, found[1][name])}
    assert differ == set(found[0])


def test_shards_and_a_single_file_give_one_fingerprint_and_the_same_sums(
    packer: Packer, tmp_path: Path
) -> None:
    base, tasks = mixed_model()
    whole = packer.pack(base, tasks)
    folder = save_sharded(base, tmp_path / "sharded")
    inputs = [TaskInput(name, str(save_sharded(t, tmp_path / name))) for name, t in tasks.items()]
    out = tmp_path / "from-shards.randes"
    pack(str(folder), inputs, out)
    with BankFile(whole) as one, BankFile(out) as other:
        assert one.manifest.base.fingerprint == other.manifest.base.fingerprint
        assert [t.fingerprint for t in one.manifest.tasks] == [
            t.fingerprint for t in other.manifest.tasks
        ]
    left, right = stored_sums(whole), stored_sums(out)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4),
    strip=st.integers(1, 60),
    device=st.sampled_from(["cpu", "cpu-torch"]),
    preset=st.sampled_from(PRESET_NAMES),
)
def test_random_shapes_give_the_same_bytes_for_any_strip(
    packer: Packer, shapes: list[list[int]], strip: int, device: str, preset: str
) -> None:
    base = random_state({f"layers.{k}.w": shape for k, shape in enumerate(shapes)})
    tasks = {f"t{k}": perturbed(base, seed=k) for k in range(3)}
    first = packer.pack(base, tasks, preset).read_bytes()
    run = RunOptions(threads=2, strip_elements=strip, device=device)
    assert packer.pack(base, tasks, preset, run=run).read_bytes() == first
